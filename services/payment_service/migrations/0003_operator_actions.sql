-- What operators did here, who, why, and to how much; nothing is ever deleted from it. `finished_at` is null while an
-- action is under way, and stays null if it was cut off.
CREATE TABLE operator_actions (
    id uuid PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    who text NOT NULL,
    command text NOT NULL,
    reason text,
    details jsonb NOT NULL,
    counts jsonb NOT NULL
);
CREATE INDEX operator_actions_by_command ON operator_actions (command, at);
