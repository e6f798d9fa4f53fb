"""Grows seeds in a host (Tamiyo decides, Kasmina carries out): germination, the gates on the way, and every end.

``Growth`` is called by the training loop at each step boundary, at each check of the monitors and at the end of each
epoch. At most one seed is live in an attribution group; the group is the whole host.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from apps.morphogenesis import planting, widen
from apps.morphogenesis.alpha import AlphaRamp
from apps.morphogenesis.evidence import Evidence, Judged, paired_ablation
from apps.morphogenesis.flops import TRAINING_FACTOR
from apps.morphogenesis.gates import Verdict, judge
from apps.morphogenesis.governor import Alarm, Governor
from apps.morphogenesis.journal import Journal
from apps.morphogenesis.learner import Learner
from apps.morphogenesis.lifecycle import Gate, SeedState, next_state
from apps.morphogenesis.measures import MEASURES
from apps.morphogenesis.monitors import Reading
from apps.morphogenesis.policy import Choice, Policy, Situation
from apps.morphogenesis.protocols import Action, KernelOffer, KernelSource, Refusal
from apps.morphogenesis.seeds import MODES, Embargo, Seed, SlotBook
from apps.morphogenesis.settings import RunSettings
