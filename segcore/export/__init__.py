"""Trained models as files of other formats, one plug-in per format, and their runtimes.

A format is a module with these names:

    TITLE                          printed name
    FILE                           main file in the format's folder
    PACKAGES                       imported packages, which the extra `export` installs
    check(bundle)                  raises ModelError if the model cannot have this format
    write(source, folder)          writes FILE, and further files, into a folder
    runner(folder)                 function of raw pixels (N, C, H, W) float32, which returns the outputs by name
    side(bundle)                   height and width of the input in pixels; None: any

All begin with the graph of `_graph`, which takes raw pixels and returns probabilities or objects.
"""
