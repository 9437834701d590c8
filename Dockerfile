# gcpzoo on the CPU, for serve and fit. Never built so far: where it was written there is no container engine.
#
#   docker build --tag gcpzoo .        # --build-arg BASE=IMAGE with PyTorch's CPU build and torchvision in it: smaller
#   docker run --init --stop-timeout 40 --publish 127.0.0.1:8000:8000 gcpzoo
#   docker run --init --shm-size 1g --volume "$PWD:/work" gcpzoo fit --config finetune/images.yaml --data.root photos
#
# --init passes on the signals, --stop-timeout leaves time to finish answers, --shm-size is for the data workers.
ARG BASE=python:3.12-slim
FROM ${BASE}

RUN pip install --no-cache-dir 'torch>=2.11' 'torchvision>=0.26'

WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY gcpzoo gcpzoo
COPY checkpoints checkpoints
COPY configs configs
RUN pip install --no-cache-dir '.[serve]'

RUN useradd --create-home gcpzoo && mkdir /weights /work && chown gcpzoo /weights /work
ENV GCPZOO_CACHE=/weights
USER gcpzoo
WORKDIR /work
VOLUME /weights
EXPOSE 8000
ENTRYPOINT ["gcpzoo"]
CMD ["serve", "--model", "resnet18_isqrt.digits", "--host", "0.0.0.0"]
