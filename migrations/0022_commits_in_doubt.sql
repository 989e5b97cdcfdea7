-- A commit whose answer was lost may arrive after later ones: from a broker that was frozen with it, or from
-- an instance that was stopped between its note and its sending. It is no reset by an operator.

alter table group_offsets
    -- The last commits without a known answer.
    add column unanswered bigint[] not null default '{}',
    -- When the last of them was added; after ten minutes none of them is expected any more.
    add column unanswered_at timestamptz;
