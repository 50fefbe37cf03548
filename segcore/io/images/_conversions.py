"""Formats of images that are not read, and the commands that convert them."""

# endings -> name of the format, and the conversion; {stem} is the name of the file without its ending
_CONVERSIONS = {
    (".nc", ".nc4", ".cdf"): (
        "NetCDF",
        'gdal_translate NETCDF:"{name}":VARIABLE {stem}.tif (gdalinfo lists them)',
    ),
    (".h5", ".hdf5", ".he5"): (
        "HDF5",
        'gdal_translate HDF5:"{name}"://DATASET {stem}.tif (gdalinfo lists them)',
    ),
    (".hdf", ".hdf4"): ("HDF4", "gdal_translate with a subdataset that gdalinfo {name} lists, to {stem}.tif"),
    (".zarr",): ("Zarr", 'gdal_translate ZARR:"{name}":/ARRAY {stem}.tif (gdalmdiminfo lists them)'),
    (".svs", ".ndpi", ".scn", ".mrxs", ".vms", ".vmu", ".bif", ".svslide"): (
        "a whole-slide image",
        "vips tiffsave {name} {stem}.tif --tile --compression deflate (openslide)",
    ),
    (".czi", ".lif", ".nd2", ".oib", ".oif", ".lsm", ".vsi", ".ims"): (
        "a microscope's own format",
        "bfconvert {name} {stem}.ome.tif (Bio-Formats)",
    ),
    (".hdr", ".bil", ".bip", ".bsq", ".dat", ".asc", ".grd", ".ers", ".ecw", ".sid", ".kap"): (
        "a raster format of another program",
        "gdal_translate with {name} or its data file, to {stem}.tif",
    ),
    (".grib", ".grb", ".grb2", ".grib2"): ("GRIB", "gdal_translate {name} {stem}.tif"),
    (".mgh", ".mgz"): ("FreeSurfer", "mri_convert {name} {stem}.nii.gz"),
    (".mnc",): ("MINC", "mnc2nii {name} {stem}.nii"),
    (".npy", ".npz"): ("an array of NumPy", "rasterio or Pillow, or nibabel for volumes"),
    (".heic", ".heif", ".avif", ".jxl", ".psd", ".tga", ".exr", ".xcf"): (
        "a picture",
        "magick {name} {stem}.png",
    ),
    (".mp4", ".avi", ".mov", ".mkv", ".webm"): ("a video", "ffmpeg -i {name} {stem}_%05d.png"),
}


def conversion(name: str) -> tuple[str, str] | None:
    """Name of a format that is not read, and how to convert the file; None for other endings.

    Args:
        name: of the file.
    """
    for endings, (what, command) in _CONVERSIONS.items():
        if name.lower().endswith(endings):
            return what, command.format(name=name, stem=name.rpartition(".")[0])
    return None
