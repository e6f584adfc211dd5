"""References in BibTeX of all that the app uses and is cited for."""

from __future__ import annotations

import re

_MARS = """@article{gesierich2025,
  title = {Extended technical and clinical validation of deep learning-based brainstem
           segmentation for application in neurodegenerative diseases},
  author = {Gesierich, Benno and Sander, Laura and others},
  journal = {Human Brain Mapping},
  year = {2025},
  doi = {10.1002/hbm.70141}
}"""
_NNUNET = """@article{isensee2021,
  title = {{nnU-Net}: a self-configuring method for deep learning-based biomedical image
           segmentation},
  author = {Isensee, Fabian and Jaeger, Paul F. and Kohl, Simon A. A. and Petersen, Jens and
            Maier-Hein, Klaus H.},
  journal = {Nature Methods},
  volume = {18},
  pages = {203--211},
  year = {2021},
  doi = {10.1038/s41592-020-01008-z}
}"""
_MDGRU = """@incollection{andermatt2016,
  title = {Multi-dimensional gated recurrent units for the segmentation of biomedical {3D}-data},
  author = {Andermatt, Simon and Pezold, Simon and Cattin, Philippe C.},
  booktitle = {Deep Learning and Data Labeling for Medical Applications},
  pages = {142--151},
  year = {2016},
  doi = {10.1007/978-3-319-46976-8_15}
}"""
_MDGRU_CODE = """@incollection{andermatt2018,
  title = {Automated segmentation of multiple sclerosis lesions using multi-dimensional gated
           recurrent units},
  author = {Andermatt, Simon and Pezold, Simon and Cattin, Philippe C.},
  booktitle = {Brainlesion: Glioma, Multiple Sclerosis, Stroke and Traumatic Brain Injuries},
  year = {2018},
  doi = {10.1007/978-3-319-75238-9_3}
}"""
_BIDS = """@article{gorgolewski2016,
  title = {The brain imaging data structure, a format for organizing and describing outputs of
           neuroimaging experiments},
  author = {Gorgolewski, Krzysztof J. and others},
  journal = {Scientific Data},
  volume = {3},
  pages = {160044},
  year = {2016},
  doi = {10.1038/sdata.2016.44}
}"""
_BIDS_APPS = """@article{gorgolewski2017,
  title = {{BIDS} apps: Improving ease of use, accessibility, and reproducibility of neuroimaging
           data analysis methods},
  author = {Gorgolewski, Krzysztof J. and others},
  journal = {PLOS Computational Biology},
  volume = {13},
  pages = {e1005209},
  year = {2017},
  doi = {10.1371/journal.pcbi.1005209}
}"""
_SYNTHSEG = """@article{billot2023,
  title = {{SynthSeg}: Segmentation of brain {MRI} scans of any contrast and resolution without
           retraining},
  author = {Billot, Benjamin and others},
  journal = {Medical Image Analysis},
  volume = {86},
  pages = {102789},
  year = {2023},
  doi = {10.1016/j.media.2023.102789}
}"""
_ALLEN = """@article{ding2016,
  title = {Comprehensive cellular-resolution atlas of the adult human brain},
  author = {Ding, Song-Lin and others},
  journal = {Journal of Comparative Neurology},
  volume = {524},
  pages = {3127--3481},
  year = {2016},
  doi = {10.1002/cne.24080}
}"""
_SANFILIPO = """@article{sanfilipo2004,
  title = {Correction for intracranial volume in analysis of whole brain atrophy in multiple
           sclerosis: the proportion vs. residual method},
  author = {Sanfilipo, Michael P. and Benedict, Ralph H. B. and Zivadinov, Robert and
            Bakshi, Rohit},
  journal = {NeuroImage},
  volume = {22},
  pages = {1732--1743},
  year = {2004},
  doi = {10.1016/j.neuroimage.2004.03.037}
}"""
KNOWN = {  # by DOI
    re.search(r"doi = \{(.+)\}", entry)[1]: entry  # type: ignore[index]
    for entry in (
        _MARS,
        _NNUNET,
        _MDGRU,
        _MDGRU_CODE,
        _BIDS,
        _BIDS_APPS,
        _SYNTHSEG,
        _ALLEN,
        _SANFILIPO,
    )
}
