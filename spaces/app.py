"""The page of gcpzoo app as a Hugging Face Space, which reaches the program by port 7860 from outside."""

from gcpzoo.serve import serve_page

if __name__ == "__main__":
    serve_page(host="0.0.0.0", port=7860)
