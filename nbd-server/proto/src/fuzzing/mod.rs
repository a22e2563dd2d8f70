//! Bodies of the fuzz targets: what must hold for any bytes.
