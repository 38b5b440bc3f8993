//! What happens in one case: plain data, so that a case that fails shrinks to the steps that matter.

use std::fmt;

use proptest::prelude::*;
use vaxel_core::service::SessionScope;

/// One case.
#[derive(Clone)]
pub(super) struct Schedule {
    /// Deadlines are short and nobody helps: everything must end by itself.
    pub(super) is_hurried: bool,
    /// Who shares a session with a server.
    pub(super) scope: SessionScope,
    pub(super) steps: Vec<Step>,
}

impl fmt::Debug for Schedule {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (is_hurried, scope) = (self.is_hurried, self.scope);
        writeln!(
            to,
            "Schedule {{ is_hurried: {is_hurried}, scope: {scope:?}, steps: vec!["
        )?;
        for step in &self.steps {
            writeln!(to, "    {step:?},")?;
        }
        write!(to, "] }}")
    }
}

/// One thing that happens. Numbers choose among what there is, round and round.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Call(usize, usize, Plan),
    /// A server that waits for it does the next thing.
    Go(usize),
    /// A caller answers what it is asked.
    Answer(usize, How),
    /// A request that brings answers and must not get anywhere.
    WrongRetry(usize, Wrong),
    /// Another caller answers the question of a legacy one.
    Steal(usize),
    Cancel(usize),
    /// The connection of one call breaks.
    Disconnect(usize),
    /// A caller whose connection broke comes back for the rest of what was said on it.
    Resume(usize),
    /// A caller ends its session and opens another.
    Leave(usize),
    /// A server forgets its sessions; the streams of its calls end too, or stay.
    Forget(usize, bool),
    Die(usize),
    ComeBack,
    /// Waits until nothing happens any more by itself.
    Settle,
}

/// What a server does when it is called.
#[derive(Clone, Debug, Default)]
pub(super) struct Plan {
    pub(super) beats: Vec<Beat>,
    pub(super) end: Finish,
    /// It waits for a [`Step::Go`] before each thing.
    pub(super) is_gated: bool,
    /// The caller wants to hear of progress.
    pub(super) wants_notes: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Beat {
    Note,
    /// Asks all of these at once.
    Ask(Vec<Ask>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    Form,
    Sampling,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Finish {
    #[default]
    Result,
    Error,
    /// Nothing, for ever.
    Silence,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    All,
    /// Only the first of several questions.
    First,
    Refuse,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    /// Another caller brings it.
    Stranger,
    /// It was brought before.
    Again,
    /// The arguments are not those of the call.
    OtherArguments,
}

impl Plan {
    /// The questions in the order in which they are asked.
    pub(super) fn asks(&self) -> Vec<Ask> {
        let asks = self.beats.iter().filter_map(|beat| match beat {
            Beat::Ask(asks) => Some(asks.clone()),
            Beat::Note => None,
        });
        asks.flatten().collect()
    }
}

pub(super) fn schedules() -> impl Strategy<Value = Schedule> {
    let steps = prop::collection::vec(steps(), 1..48);
    let scope = prop_oneof![
        3 => Just(SessionScope::PerPrincipal),
        1 => Just(SessionScope::Shared),
        1 => Just(SessionScope::PerClient),
    ];
    let parts = (prop::bool::weighted(0.25), scope, steps);
    parts.prop_map(|(is_hurried, scope, steps)| Schedule {
        is_hurried,
        scope,
        steps,
    })
}

fn steps() -> impl Strategy<Value = Step> {
    let which = 0..24_usize;
    prop_oneof![
        10 => (which.clone(), which.clone(), plans()).prop_map(|(by, of, plan)| Step::Call(by, of, plan)),
        8 => which.clone().prop_map(Step::Go),
        8 => (which.clone(), how()).prop_map(|(which, how)| Step::Answer(which, how)),
        2 => (which.clone(), wrong()).prop_map(|(which, wrong)| Step::WrongRetry(which, wrong)),
        1 => which.clone().prop_map(Step::Steal),
        1 => which.clone().prop_map(Step::Cancel),
        2 => which.clone().prop_map(Step::Disconnect),
        2 => which.clone().prop_map(Step::Resume),
        1 => which.clone().prop_map(Step::Leave),
        1 => (which.clone(), any::<bool>()).prop_map(|(which, cut)| Step::Forget(which, cut)),
        1 => which.prop_map(Step::Die),
        2 => Just(Step::ComeBack),
        5 => Just(Step::Settle),
    ]
}

fn plans() -> impl Strategy<Value = Plan> {
    let beats = prop::collection::vec(
        prop_oneof![
            Just(Beat::Note),
            prop::collection::vec(prop_oneof![Just(Ask::Form), Just(Ask::Sampling)], 1..4)
                .prop_map(Beat::Ask),
        ],
        0..4,
    );
    let end = prop_oneof![
        8 => Just(Finish::Result),
        1 => Just(Finish::Error),
        1 => Just(Finish::Silence),
    ];
    (beats, end, any::<bool>(), any::<bool>()).prop_map(|(beats, end, is_gated, wants_notes)| {
        Plan {
            beats,
            end,
            is_gated,
            wants_notes,
        }
    })
}

fn how() -> impl Strategy<Value = How> {
    prop_oneof![6 => Just(How::All), 1 => Just(How::First), 1 => Just(How::Refuse)]
}

fn wrong() -> impl Strategy<Value = Wrong> {
    prop_oneof![
        Just(Wrong::Stranger),
        Just(Wrong::Again),
        Just(Wrong::OtherArguments),
    ]
}
