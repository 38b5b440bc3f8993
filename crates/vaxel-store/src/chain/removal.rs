//! The removal of old lines: what is in the chain there is proven to be whole first, so that a gap hides nothing.

use vaxel_core::{
    audit::chain::{Checker, Flaw, Gap, Link},
    time::Timestamp,
};

use super::{AuditSeal, GAP_TO, head, marks, put_gap, read_gap, sealing};
use crate::{
    audit,
    error::Error,
    stmt::{Stmt, values},
    store::Store,
    tx::Tx,
};

// Only what is older than everything that stays.
static OLD: Stmt = Stmt::new(
    "SELECT seq FROM audit WHERE seq < (SELECT max(seq) FROM audit) \
     AND seq < COALESCE((SELECT seq FROM audit WHERE at >= $1 ORDER BY seq LIMIT 1), \
     (SELECT max(seq) FROM audit)) ORDER BY seq LIMIT $2",
);
// An index holds these lines alone: see the step of the schema.
static TRANSITIONS: Stmt = Stmt::new(
    "SELECT seq FROM audit WHERE action = 'service.lifecycle' AND at < $1 \
     AND seq < (SELECT max(seq) FROM audit) ORDER BY at LIMIT $2",
);
static REMOVE: Stmt = Stmt::new("DELETE FROM audit WHERE seq = $1");
static REMOVE_GAP: Stmt = Stmt::new("DELETE FROM audit_gaps WHERE first_line = $1");
static GAP_FROM: Stmt = Stmt::new(
    "SELECT first_line, last_line, hash_before, hash_after, seal FROM audit_gaps WHERE first_line = $1",
);

impl Store {
    /// Deletes up to `step` of the oldest lines, those from before `before`; returns how many. Call it until
    /// it returns 0. The newest line stays.
    ///
    /// # Errors
    /// [`Error::Flawed`] when one of them, or what is around them, does not hold: nothing is deleted then.
    pub async fn trim_audit(&self, before: Timestamp, step: u32) -> Result<usize, Error> {
        self.trim(&OLD, "trim_audit", (before, step)).await
    }

    /// Deletes up to `step` of the lines from before `before` about what services went through by
    /// themselves; returns how many. What people did stays. Call it until it returns 0.
    ///
    /// # Errors
    /// As [`Store::trim_audit`].
    pub async fn trim_transitions(&self, before: Timestamp, step: u32) -> Result<usize, Error> {
        self.trim(&TRANSITIONS, "trim_transitions", (before, step))
            .await
    }

    async fn trim(
        &self,
        which: &'static Stmt,
        name: &'static str,
        (before, step): (Timestamp, u32),
    ) -> Result<usize, Error> {
        self.write(name, move |tx| {
            let values = values![before, i64::from(step)];
            let numbers = tx.query(which, &values, |row| row.count(0))?;
            remove(tx, numbers)
        })
        .await
    }
}

/// Takes lines away, in the order of their numbers, and leaves gaps where they were. What does not hold stays as it
/// is, with everything else: a gap that is sealed over it would hide it for ever.
fn remove(tx: &mut Tx<'_>, mut numbers: Vec<u64>) -> Result<usize, Error> {
    numbers.sort_unstable();
    let is_chained = head(tx)?.is_some();
    if !is_chained && sealing(tx).is_ok() && !numbers.is_empty() {
        return Err(Flaw::new(0, "nothing says which line is the newest").into());
    }
    for run in numbers.chunk_by(|one, next| *next == one + 1) {
        let (Some(first), Some(last)) = (run.first(), run.last()) else {
            continue;
        };
        if is_chained {
            leave_gap(tx, (*first, *last))?;
        }
        for number in run {
            tx.put(&REMOVE, &values![*number])?;
        }
    }
    Ok(numbers.len())
}

/// Says that lines are gone, together with those of the gaps on both sides of them. All of that is looked at first.
fn leave_gap(tx: &mut Tx<'_>, (first, last): (u64, u64)) -> Result<(), Error> {
    let AuditSeal { stamp, since } = sealing(tx)?;
    let earlier = tx.find(&GAP_TO, &values![first.saturating_sub(1)], read_gap)?;
    let start = match &earlier {
        Some(gap) => Link {
            number: gap.first.saturating_sub(1),
            hash: gap.before,
        },
        None => proven(tx, first.saturating_sub(1))?,
    };
    let mut checker = Checker::new(&*stamp, since, start);
    if let Some(gap) = &earlier {
        checker.gap(gap)?;
        tx.put(&REMOVE_GAP, &values![gap.first])?;
    }
    for line in tx.query(&audit::BETWEEN, &values![first, last], audit::read)? {
        checker.holds(&line)?;
    }
    if let Some(later) = tx.find(&GAP_FROM, &values![last + 1], read_gap)? {
        checker.gap(&later)?;
        tx.put(&REMOVE_GAP, &values![later.first])?;
    }
    let end = checker.at();
    let gap = Gap {
        first: start.number + 1,
        last: end.number,
        before: start.hash,
        after: end.hash,
        seal: None,
    };
    put_gap(tx, &*stamp, &gap)
}

/// The link at a line that stays, whose hash is one of Vaxel's.
fn proven(tx: &mut Tx<'_>, number: u64) -> Result<Link, Error> {
    if number == 0 {
        return Ok(Link::default());
    }
    let AuditSeal { stamp, since } = sealing(tx)?;
    let Some((hash, seal)) = marks(tx, number)? else {
        return Err(Flaw::new(number, "it is missing, or has no hash").into());
    };
    if number >= since && stamp.seal(&hash) != seal {
        let what = "its seal is not one of Vaxel: the line was written past it";
        return Err(Flaw::new(number, what).into());
    }
    Ok(Link { number, hash })
}

#[cfg(test)]
pub(crate) static STATEMENTS: &[&Stmt] = &[&OLD, &TRANSITIONS, &REMOVE, &REMOVE_GAP, &GAP_FROM];
