"""What the benchmarks take from the app's engines and from the makers of test data.

Apart from `benchmarks.app`, so that a process that times an engine loads nothing else.
"""

from __future__ import annotations

from bids_app.engines.mdgru.inference import predict, whiten
from bids_app.engines.mdgru.layout import PUBLISHED, select_weights
from bids_app.engines.mdgru.network import MDGRU
from bids_app.engines.mdgru.options import CONVOLUTIONS
from bids_app.engines.nnunet.cascade import Cascade
from bids_app.engines.nnunet.gpu import use_half
from bids_app.engines.nnunet.inference import NnUNet
from bids_app.engines.nnunet.plans import read_plans
from bids_app.engines.threads import fix_convolutions
from bids_app.models.importers.mdgru.checkpoint import read_checkpoint
from bids_app.models.importers.nnunet_v1.importer import convert
from test_data.make_datasets import head
from test_data.make_fixture_model import write_random_model
from test_data.make_mdgru_model import random_weights, with_slots, write_checkpoint

__all__ = [
    "CONVOLUTIONS",
    "MDGRU",
    "PUBLISHED",
    "Cascade",
    "NnUNet",
    "convert",
    "fix_convolutions",
    "head",
    "predict",
    "random_weights",
    "read_checkpoint",
    "read_plans",
    "select_weights",
    "use_half",
    "whiten",
    "with_slots",
    "write_checkpoint",
    "write_random_model",
]
