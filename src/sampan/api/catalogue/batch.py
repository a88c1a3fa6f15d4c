"""The kinds of group batch: work that ends, and work that begins by the clock."""

from __future__ import annotations

from sampan.api.catalogue.parts import ALL, count, fields, strict
from sampan.api.columns import batch as columns
from sampan.api.resource import ResourceType, Rules
from sampan.api.rules import batch as rules
from sampan.api.rules import batch_defaults, batch_warnings, prepare
from sampan.api.rules.batch_status import validate_job_status

BATCH = "io.k8s.api.batch.v1"
_JOB = Rules(
    default=strict(batch_defaults.job),
    prepare_create=batch_defaults.create_job,
    prepare_update=prepare.keep_status,
    validate=rules.validate_job,
    validate_update=rules.update_job,
    validate_status=validate_job_status,
    warn=batch_warnings.job,
)
_CRON_JOB = Rules(
    default=strict(batch_defaults.cron_job),
    prepare_create=prepare.drop_status,
    prepare_update=prepare.keep_status,
    validate=rules.validate_cron_job,
    validate_create=rules.create_cron_job,
    validate_update=rules.update_cron_job,
    warn=batch_warnings.cron_job,
)

KINDS: tuple[ResourceType, ...] = (
    ResourceType(
        group="batch", kind="Job", plural="jobs", singular="job", categories=ALL,
        definition=f"{BATCH}.Job", subresources=("status",),
        fields=fields(status__successful=count("status.succeeded")), has_status=True,
        has_generation=True, columns=columns.JOB, rules=_JOB,
    ),
    ResourceType(
        group="batch", kind="CronJob", plural="cronjobs", singular="cronjob",
        short_names=("cj",), categories=ALL, definition=f"{BATCH}.CronJob",
        subresources=("status",), fields=fields(), has_status=True, has_generation=True,
        columns=columns.CRON_JOB, rules=_CRON_JOB,
    ),
)  # fmt: skip
