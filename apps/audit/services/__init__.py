"""What writes the trail: recording events, sealing them, and keeping the store."""

from apps.audit.services.exporting import record_export
from apps.audit.services.partitions import archivable_partitions, archive_partition, index_text, make_partitions
from apps.audit.services.people import erase_person
from apps.audit.services.recording import LEAF_COLUMNS, json_patch, record, told
from apps.audit.services.reporting import reproduce_report, request_report, write_report
from apps.audit.services.sealing import accept_restored_trail, copy_checkpoints, rotate_key, seal
from apps.audit.services.verifying import verified_size, verify_trail

__all__ = [
    "LEAF_COLUMNS",
    "accept_restored_trail",
    "archivable_partitions",
    "archive_partition",
    "copy_checkpoints",
    "erase_person",
    "index_text",
    "json_patch",
    "make_partitions",
    "record",
    "record_export",
    "reproduce_report",
    "request_report",
    "rotate_key",
    "seal",
    "told",
    "verified_size",
    "verify_trail",
    "write_report",
]
