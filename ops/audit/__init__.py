"""Do the three databases tell one true story?

`audit` reads each of them in one snapshot and checks A1 to A11, and with the topics A12 (CONTRACT, section 6). What it
suspects it looks at again, and reports only what is still true. Start reading in `auditor`; each check stands beside
its SQL: `inventory` (A1 to A4), `order` (A5), `agreement` (A6 to A9, over what `comparison` reads), `delivery` (A10,
A11), `topics` (A12).
"""

from ops.audit.auditor import audit
from ops.audit.findings import AuditReport, Finding
from ops.audit.limits import AuditLimits
from ops.audit.report import render
from ops.audit.topics import Topics

__all__ = ["AuditLimits", "AuditReport", "Finding", "Topics", "audit", "render"]
