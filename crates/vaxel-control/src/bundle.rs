//! Many resources at once: what an apply would do, and doing it; what an export holds.
//!
//! A plan compares what a document asks for with what is stored and writes nothing. An apply makes the
//! changes of its plan one by one, each as if it had been asked for alone, in an order in which no
//! service comes before what it needs.

use vaxel_core::{
    bundle::{Bundle, StepAction, StepResource},
    difference::Difference,
    failure::Failure,
    principal::Principal,
};

use crate::{
    change::{Change, ServiceRef},
    control::Control,
    query::{Observed, Page, ServiceFilter},
};

mod planning;

/// Names that a sentence lists; of more it says how many.
const NAMED_MAX: usize = 10;

/// What an apply does, in the order in which it does it.
#[derive(Debug, Clone)]
pub struct Plan {
    /// One per resource of the document, and one per service that is removed.
    pub steps: Vec<Step>,
}

/// What is done with one resource.
#[derive(Debug, Clone)]
pub struct Step {
    /// What it is.
    pub resource: StepResource,
    /// Its name.
    pub name: String,
    /// What is done.
    pub action: StepAction,
    /// Place by place, when it is created or updated. Values that may be secret are references or `***`.
    pub differences: Vec<Difference>,
    change: Option<Box<Change>>,
}

impl Control {
    /// Makes everything as the document asks for, and answers what was done. When it answers, all of it is
    /// on disk. It goes on when nobody waits for the answer.
    ///
    /// # Errors
    /// Those of [`Control::plan`], before anything is written; those of a change, which ends it: the
    /// sentence says what was done before and what was not done.
    pub async fn apply_bundle(
        &self,
        caller: &Principal,
        bundle: Bundle,
        prune: Option<&str>,
    ) -> Result<Plan, Failure> {
        self.terms.check()?;
        let (control, caller) = (self.clone(), caller.clone());
        let prune = prune.map(str::to_owned);
        let working = self.inner.changes.spawn(async move {
            let mut plan = control.plan(&caller, bundle, prune.as_deref()).await?;
            control.carry_out(&caller, &mut plan).await?;
            Ok(plan)
        });
        working.await.map_err(Failure::internal)?
    }

    async fn carry_out(&self, caller: &Principal, plan: &mut Plan) -> Result<(), Failure> {
        for index in 0..plan.steps.len() {
            let Some(change) = plan.steps[index].change.take() else {
                continue;
            };
            if let Err(failure) = self.apply(caller, *change).await {
                return Err(broken_off(&plan.steps, index, failure));
            }
        }
        Ok(())
    }

    /// Every service, or those that are named, in the order of their names; `deleted`: those in the
    /// archive. `mcp:read`.
    pub async fn export(
        &self,
        caller: &Principal,
        names: &[ServiceRef],
        deleted: bool,
    ) -> Result<Vec<Observed>, Failure> {
        let mut all = Vec::new();
        for name in names {
            all.push(self.service(caller, name).await?);
        }
        let filter = ServiceFilter {
            deleted,
            ..ServiceFilter::default()
        };
        let mut page = Page {
            limit: Page::LIMIT_MAX,
            cursor: None,
        };
        while names.is_empty() {
            let mut list = self.services(caller, &filter, &page).await?;
            all.append(&mut list.items);
            if list.next_cursor.is_none() {
                break;
            }
            page.cursor = list.next_cursor;
        }
        let unread = all.iter().find(|one| one.resource.defect.is_some());
        if let Some(Observed { resource, .. }) = unread {
            let issues = resource.problems();
            return Err(Failure::invalid(
                &format!("The service `{}`", resource.name),
                issues,
            ));
        }
        let key = |one: &Observed| (one.resource.name.clone(), one.resource.id);
        all.sort_by_key(key);
        all.dedup_by_key(|one| one.resource.id);
        Ok(all)
    }
}

/// The failure of a step, with what was done before it and what was not.
fn broken_off(steps: &[Step], index: usize, mut failure: Failure) -> Failure {
    let changing = |steps: &[Step]| {
        let steps = steps
            .iter()
            .filter(|one| one.action != StepAction::Unchanged);
        steps
            .map(|one| format!("`{}`", one.name))
            .collect::<Vec<_>>()
    };
    let (done, left) = (changing(&steps[..index]), changing(&steps[index + 1..]));
    failure.detail = format!(
        "`{}` was not applied: {}. Done before: {}. Not done: {}",
        steps[index].name,
        failure.detail.trim_end_matches('.'),
        some(&done),
        some(&left)
    )
    .into();
    failure
}

fn some(names: &[String]) -> String {
    let listed = &names[..names.len().min(NAMED_MAX)];
    match names.len() - listed.len() {
        0 if listed.is_empty() => "nothing".to_owned(),
        0 => listed.join(", "),
        more => format!("{} and {more} more", listed.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use vaxel_core::failure::Kind;

    use super::*;

    fn step(name: &str, action: StepAction) -> Step {
        Step {
            resource: StepResource::Service,
            name: name.to_owned(),
            action,
            differences: Vec::new(),
            change: None,
        }
    }

    #[test]
    fn who_is_stopped_in_the_middle_hears_what_was_done_and_what_was_not() {
        let steps = [
            step("a", StepAction::Create),
            step("same", StepAction::Unchanged),
            step("b", StepAction::Update),
            step("c", StepAction::Delete),
        ];
        let failure = Failure::new(Kind::VersionMismatch, "It has version 3, not 2");
        let told = broken_off(&steps, 2, failure);
        assert_eq!(told.kind, Kind::VersionMismatch);
        assert_eq!(
            told.detail,
            "`b` was not applied: It has version 3, not 2. Done before: `a`. Not done: `c`"
        );
        let failure = Failure::new(Kind::Conflict, "Taken.");
        let told = broken_off(&steps[..1], 0, failure);
        assert_eq!(
            told.detail,
            "`a` was not applied: Taken. Done before: nothing. Not done: nothing"
        );
        let names: Vec<String> = (0..12).map(|number| number.to_string()).collect();
        assert!(
            some(&names).ends_with("8, 9 and 2 more"),
            "{}",
            some(&names)
        );
    }
}
