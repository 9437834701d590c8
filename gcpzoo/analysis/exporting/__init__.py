"""A network without the zoo: ONNX and torch.export files, in few bits, checked before they are written."""
