"""What of the audit's findings can be put right safely, and how?

Three remedies, each of which changes nothing that is right. `Recount`: a counter becomes what its ledger adds up to,
where ledger and reservations agree. `TellAgain`: an event that a topic has lost is told again under its number, with
the state of now. `Settle`: a stuck order goes on, because whoever has not been heard tells again where it stands, or
because a hold that is due is swept. The services' own code does the work, in their own databases; readers join what
they hear by rank. Start reading in `planning`; `standing` holds the rules, `executing` acts, `store` has the SQL.
"""

from ops.repair.executing import Outcome, execute
from ops.repair.planning import Plan, plan_repair
from ops.repair.remedies import Recount, Remedy, Settle, TellAgain, Unrepairable

__all__ = [
    "Outcome",
    "Plan",
    "Recount",
    "Remedy",
    "Settle",
    "TellAgain",
    "Unrepairable",
    "execute",
    "plan_repair",
]
