//! Changes and queries of users.

use serde_json::{Value, json};
use vaxel_core::{
    access::require,
    audit::AuditLine,
    failure::{Failure, Issue, Kind},
    id::Id,
    name::UserName,
    principal::{Permission, Principal},
    role::BuiltIn,
    user::{UserDraft, UserKind, UserResource},
};
use vaxel_store::{Error as StoreError, KeyRow};

use crate::{
    access::AccessEntry,
    change::Outcome,
    control::{Control, compare_version, conflict},
    rights::{may_give, may_lift, unknown_user},
};

/// Names that Vaxel itself goes by: what it owns must not become somebody's.
const RESERVED: [&str; 2] = ["vaxel", "anyone"];

/// One change of users. `users:manage`; and nobody changes a user who may do more.
#[derive(Debug, Clone)]
pub enum UserChange {
    /// A new one.
    Create(UserDraft),
    /// Another state for one; name and kind stay.
    Update {
        /// Who.
        name: String,
        /// The whole new state.
        draft: UserDraft,
        /// Refuse when the current version is another one.
        expected: Option<u64>,
    },
    /// It is gone, with its keys and with what is shared with it. Its name stays taken.
    Delete {
        /// Who.
        name: String,
        /// Who gets its services; without this it must have none.
        transfer_to: Option<UserName>,
        /// Refuse when the current version is another one.
        expected: Option<u64>,
    },
}

impl Control {
    pub(crate) async fn change_user(
        &self,
        caller: &Principal,
        change: UserChange,
    ) -> Result<Outcome, Failure> {
        require(caller, Permission::UsersManage)?;
        let _turn = self.inner.access.lock().await;
        let user = match change {
            UserChange::Create(draft) => self.create_user(caller, draft).await?,
            UserChange::Update {
                name,
                draft,
                expected,
            } => self.update_user(caller, &name, (draft, expected)).await?,
            UserChange::Delete {
                name,
                transfer_to,
                expected,
            } => {
                self.delete_user(caller, &name, (transfer_to, expected))
                    .await?;
                return Ok(Outcome::Done);
            }
        };
        Ok(Outcome::Access(Box::new(AccessEntry::User(user))))
    }

    /// Every user who is not gone, by name. `users:read`.
    pub async fn users(&self, caller: &Principal) -> Result<Vec<UserResource>, Failure> {
        require(caller, Permission::UsersRead)?;
        let mut all = self.store().users().await?;
        all.retain(|user| user.deleted_at.is_none());
        Ok(all)
    }

    /// One user. `users:read`, except of oneself.
    pub async fn user(&self, caller: &Principal, name: &str) -> Result<UserResource, Failure> {
        if caller.rights.user().is_none_or(|own| own.as_str() != name) {
            require(caller, Permission::UsersRead)?;
        }
        self.find_user(name).await
    }

    /// Without any user nobody could ever make one: the first start makes it.
    pub(crate) async fn first_user(&self) -> Result<(), Failure> {
        if !self.store().users().await?.is_empty() {
            return Ok(());
        }
        let name = BuiltIn::Admin.as_str();
        let draft = UserDraft {
            name: name.parse().map_err(Failure::internal)?,
            kind: UserKind::Person,
            title: None,
            roles: name.parse().into_iter().collect(),
            limits: None,
            disabled: false,
        };
        let user = self.made(draft);
        let audit = self.user_audit(&Principal::system(), "user.create", &user);
        let audit = audit.changing(Value::Null, wanted(&user));
        Ok(self.store().create_user(&user, audit).await?)
    }

    async fn create_user(
        &self,
        caller: &Principal,
        draft: UserDraft,
    ) -> Result<UserResource, Failure> {
        let mut issues = Vec::new();
        if RESERVED.contains(&draft.name.as_str()) {
            let message = "is what Vaxel itself goes by: choose another name";
            issues.push(Issue::new("name", message));
        }
        self.check_roles(caller, &draft, issues).await?;
        let quota = self.quota_of((draft.limits, &draft.roles)).await?;
        may_lift(caller, quota)?;
        let user = self.made(draft);
        if let Some(other) = self.store().user(&user.name).await? {
            return Err(in_use(&other));
        }
        let audit = self.user_audit(caller, "user.create", &user);
        let audit = audit.changing(Value::Null, wanted(&user));
        let created = self.store().create_user(&user, audit).await;
        created.map_err(|error| match error {
            StoreError::Taken => in_use(&user),
            other => other.into(),
        })?;
        self.access_done("user", "user.create").await?;
        Ok(user)
    }

    async fn update_user(
        &self,
        caller: &Principal,
        name: &str,
        (draft, expected): (UserDraft, Option<u64>),
    ) -> Result<UserResource, Failure> {
        let old = self.find_user(name).await?;
        self.may_change(caller, &old).await?;
        compare_version(("user", old.name.as_str()), old.version, expected)?;
        let mut issues = Vec::new();
        if draft.name != old.name {
            let message = format!("never changes: it is `{}`", old.name);
            issues.push(Issue::new("name", message));
        }
        if draft.kind != old.kind {
            let message = format!("never changes: it is {}", old.kind);
            issues.push(Issue::new("kind", message));
        }
        self.check_roles(caller, &draft, issues).await?;
        let UserDraft {
            name: _,
            kind: _,
            title,
            roles,
            limits,
            disabled,
        } = draft;
        if (limits, &roles) != (old.limits, &old.roles) {
            let quota = self.quota_of((limits, &roles)).await?;
            if quota != self.quota_of((old.limits, &old.roles)).await? {
                may_lift(caller, quota)?;
            }
        }
        let next = UserResource {
            version: old.version + 1,
            title,
            roles,
            limits,
            disabled,
            updated_at: self.now(),
            ..old.clone()
        };
        self.write_user(caller, (&old, &next), None, "user.update")
            .await?;
        Ok(next)
    }

    async fn delete_user(
        &self,
        caller: &Principal,
        name: &str,
        (heir, expected): (Option<UserName>, Option<u64>),
    ) -> Result<(), Failure> {
        let old = self.find_user(name).await?;
        self.may_change(caller, &old).await?;
        compare_version(("user", old.name.as_str()), old.version, expected)?;
        if let Some(heir) = &heir {
            let is_there = self.inner.people.find(heir.as_str()).is_some();
            let message = if *heir == old.name {
                "must be another user than the one who goes".to_owned()
            } else if is_there {
                String::new()
            } else {
                unknown_user(heir)
            };
            if !message.is_empty() {
                let issues = vec![Issue::new("transfer_to", message)];
                return Err(Failure::invalid("The deletion", issues));
            }
        }
        let owned = self.store().owned_services(&old.name).await?;
        if heir.is_none() && !owned.is_empty() {
            let (count, plural) = (owned.len(), if owned.len() == 1 { "" } else { "s" });
            return Err(conflict(format!(
                "`{0}` owns {count} service{plural}, those in the archive included; say who gets them: \
                 `vaxel user rm {0} --transfer-to USER`",
                old.name
            )));
        }
        let now = self.now();
        let next = UserResource {
            version: old.version + 1,
            updated_at: now,
            deleted_at: Some(now),
            ..old.clone()
        };
        self.write_user(caller, (&old, &next), heir, "user.delete")
            .await?;
        self.publish_keys_of(next.name).await?;
        for service in owned {
            self.inner.signals.changed(service);
        }
        Ok(())
    }

    /// Writes `next` in the place of `old`, unless nobody would be left who manages everything.
    async fn write_user(
        &self,
        caller: &Principal,
        (old, next): (&UserResource, &UserResource),
        heir: Option<UserName>,
        action: &'static str,
    ) -> Result<(), Failure> {
        self.keep_an_admin(old, next).await?;
        let mut audit = self.user_audit(caller, action, next);
        audit.detail["before"] =
            json!({ "roles": old.roles, "limits": old.limits, "disabled": old.disabled });
        if let Some(heir) = &heir {
            audit.detail["transfer_to"] = heir.as_str().into();
        }
        let after = next
            .deleted_at
            .map_or_else(|| wanted(next), |_| Value::Null);
        let audit = audit.changing(wanted(old), after);
        let expected = (old.version, heir);
        match self.store().update_user(next, expected, audit).await {
            Ok(()) => self.access_done("user", action).await,
            Err(StoreError::Changed) => {
                let current = self.find_user(old.name.as_str()).await?.version;
                compare_version(("user", old.name.as_str()), current, Some(old.version))
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn find_user(&self, name: &str) -> Result<UserResource, Failure> {
        let found = match name.parse() {
            Ok(name) => self.store().user(&name).await?,
            Err(_) => None,
        };
        let found = found.filter(|user| user.deleted_at.is_none());
        found.ok_or_else(|| {
            let name: String = name.chars().take(100).collect();
            Failure::new(
                Kind::NotFound,
                format!("There is no user called `{name}`; `vaxel user ls` shows which there are"),
            )
        })
    }

    /// Whether the caller may change a user: who manages users must not become more by it than it is.
    pub(crate) async fn may_change(
        &self,
        caller: &Principal,
        user: &UserResource,
    ) -> Result<(), Failure> {
        match self.reach_of(&user.roles).await? {
            Ok(reach) => may_give(caller, reach),
            Err(_) => may_give(caller, vaxel_core::role::Reach::ALL),
        }
    }

    async fn check_roles(
        &self,
        caller: &Principal,
        draft: &UserDraft,
        mut issues: Vec<Issue>,
    ) -> Result<(), Failure> {
        let reach = self.reach_of(&draft.roles).await?;
        let reach = reach.unwrap_or_else(|unknown| {
            issues.extend(unknown);
            vaxel_core::role::Reach::default()
        });
        if !issues.is_empty() {
            return Err(Failure::invalid("The user", issues));
        }
        may_give(caller, reach)
    }

    async fn keep_an_admin(&self, old: &UserResource, next: &UserResource) -> Result<(), Failure> {
        let is_enabled = |user: &UserResource| user.deleted_at.is_none() && !user.disabled;
        let is_admin =
            |user: &UserResource| is_enabled(user) && user.roles.contains(BuiltIn::Admin.as_str());
        let all = self.store().users().await?;
        let others = || all.iter().filter(|user| user.id != next.id);
        if is_admin(old) && !is_admin(next) && !others().any(is_admin) {
            return Err(conflict(format!(
                "`{}` is the last user with the role `admin`; give it to another one first",
                old.name
            )));
        }
        if is_enabled(old) && !is_enabled(next) || is_admin(old) && !is_admin(next) {
            let now = self.now();
            let keys = self.store().keys_that_may(Permission::KeysManage).await?;
            let is_kept =
                |key: &KeyRow| key.user != next.name && key.is_live(now) && self.manages_keys(key);
            let had =
                |key: &KeyRow| key.user == next.name && key.is_live(now) && self.manages_keys(key);
            if keys.iter().any(had) && !keys.iter().any(is_kept) {
                return Err(conflict(format!(
                    "`{}` has the last key that can manage keys; create one for another user first",
                    old.name
                )));
            }
        }
        Ok(())
    }

    fn made(&self, draft: UserDraft) -> UserResource {
        let UserDraft {
            name,
            kind,
            title,
            roles,
            limits,
            disabled,
        } = draft;
        let now = self.now();
        UserResource {
            id: Id::new(now),
            name,
            kind,
            version: 1,
            title,
            roles,
            limits,
            disabled,
            created_at: now,
            updated_at: now,
            deleted_at: None,
        }
    }

    fn user_audit(
        &self,
        caller: &Principal,
        action: &'static str,
        user: &UserResource,
    ) -> AuditLine {
        let target = ("user", user.id.to_string(), user.name.to_string());
        let mut audit = self.line(caller, action, target);
        audit.detail =
            json!({ "roles": user.roles, "limits": user.limits, "disabled": user.disabled });
        audit
    }
}

/// What a user is, for the audit.
fn wanted(user: &UserResource) -> Value {
    json!({
        "name": user.name, "kind": user.kind, "title": user.title, "roles": user.roles,
        "disabled": user.disabled, "limits": user.limits,
    })
}

fn in_use(user: &UserResource) -> Failure {
    let whose = if user.deleted_at.is_some() {
        "it was the name of a user who is gone, and is not given again"
    } else {
        "another user has this name"
    };
    conflict(format!("`{}` is taken: {whose}", user.name))
}
