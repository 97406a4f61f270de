"""CVAT for images 1.1: XML with a mask a segment, in CVAT's run lengths (row by row within the segment's box)."""

from collections.abc import Sequence
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from sa2va_bento.labels.labelled import Labelled, classes_of, label_of
from sa2va_bento.media.mask_formats import bounding_box


def document(pictures: Sequence[Labelled]) -> str:
    """One document of all pictures."""
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    labels = ElementTree.SubElement(ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "job"), "labels")
    for name in classes_of(pictures):
        ElementTree.SubElement(ElementTree.SubElement(labels, "label"), "name").text = name
    for number, picture in enumerate(pictures):
        width, height = picture.size
        about = {"id": str(number), "name": picture.name, "width": str(width), "height": str(height)}
        image = ElementTree.SubElement(root, "image", about)
        for segment in picture.seen:
            left, top, across, down = bounding_box(segment.mask)
            crop = segment.mask[top : top + down, left : left + across]
            place = {"left": str(left), "top": str(top), "width": str(across), "height": str(down)}
            runs = ", ".join(map(str, row_runs(crop)))
            kept = {"label": label_of(segment), "source": "auto", "occluded": "0", "rle": runs, **place, "z_order": "0"}
            ElementTree.SubElement(image, "mask", kept)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def row_runs(mask: NDArray[np.bool_]) -> list[int]:
    """Lengths of runs row by row, the first of them of background, be it empty."""
    flat = mask.ravel()
    edges = np.flatnonzero(np.diff(flat)) + 1
    lengths = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    return [0, *lengths] if flat[0] else lengths
