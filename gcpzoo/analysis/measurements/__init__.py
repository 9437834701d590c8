"""What `gcpzoo analyze` measures: spectra, roots, calibration, gradients, landscape, sharpness, corruptions."""
