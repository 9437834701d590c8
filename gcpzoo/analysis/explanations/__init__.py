"""Why a network decides as it does: channel pairs of the covariance and positions of an image, and their check."""
