//! How much users may take: who says so, what follows, and that no change gives back what was taken.

use std::time::Duration;

use serde_json::{Value, json};
use vaxel_control::{AccessQuery, Change, RoleChange, UserChange};
use vaxel_core::{
    failure::{Failure, Kind},
    principal::Principal,
    quota::{Limit, Quota, RoleQuotas},
    role::{BuiltIn, RoleDraft},
    time::{Clock, Timestamp},
    user::UserDraft,
};

use crate::home::{Home, demo, folder, open_at};

const NOON: Timestamp = Timestamp::from_millis(1_800_000_000_000);

impl Home {
    async fn creates(&self, who: &Principal, name: &str) -> Result<(), Failure> {
        let change = Change::create(&demo(name)).unwrap();
        self.control.submit(who, change).await.map(drop)
    }

    async fn makes_user(&self, by: &Principal, draft: &Value) -> Result<(), Failure> {
        let draft = UserDraft::from_json(draft).unwrap();
        let change = Change::User(UserChange::Create(draft));
        self.control.submit(by, change).await.map(drop)
    }

    async fn changes_user(&self, by: &Principal, draft: &Value) -> Result<(), Failure> {
        let draft = UserDraft::from_json(draft).unwrap();
        let change = Change::User(UserChange::Update {
            name: draft.name.to_string(),
            draft,
            expected: None,
        });
        self.control.submit(by, change).await.map(drop)
    }

    async fn makes_role(&self, by: &Principal, draft: &Value) -> Result<(), Failure> {
        let draft = RoleDraft::from_json(draft).unwrap();
        let change = Change::Role(RoleChange::Create(draft));
        self.control.submit(by, change).await.map(drop)
    }

    /// A user as a caller, as it is now.
    fn is(&self, name: &str) -> Principal {
        self.control.as_user(name).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_creates_five_services_and_then_one_in_a_minute() {
    let (folder, clock) = (folder(), Clock::manual(NOON));
    let home = open_at(folder.path(), clock.clone(), |_| {}).await;
    for name in ["anna", "bob"] {
        home.makes_user(&home.admin, &json!({"name": name}))
            .await
            .unwrap();
    }
    let anna = home.is("anna");
    // The demo server runs nothing on this host; what is refused otherwise is not counted.
    let wrong =
        Change::create(&json!({"name": "x", "spec": {"source": {"process": {"command": "x"}}}}));
    home.control
        .submit(&anna, wrong.unwrap())
        .await
        .unwrap_err();
    for number in 0..5 {
        home.creates(&anna, &format!("a{number}")).await.unwrap();
    }
    let taken = home.creates(&home.is("bob"), "a1").await.unwrap_err();
    assert_eq!(taken.kind, Kind::Conflict);
    let refused = home.creates(&anna, "a5").await.unwrap_err();
    assert_eq!(
        (refused.kind, refused.retry_after),
        (Kind::RateLimited, Some(60))
    );
    let said = "`anna` may create 5 services in 5m; try again in 60 s";
    assert_eq!(refused.detail, said);

    // No change of rights gives anything back.
    let role =
        json!({"name": "tester", "permissions": ["mcp:read"], "limits": {"creations": "5/5m"}});
    home.makes_role(&home.admin, &role).await.unwrap();
    let changed = json!({"name": "anna", "roles": ["user", "tester"], "title": "Anna"});
    home.changes_user(&home.admin, &changed).await.unwrap();
    let anna = home.is("anna");
    assert_eq!(
        home.creates(&anna, "a5").await.unwrap_err().kind,
        Kind::RateLimited
    );

    for number in 0..5 {
        home.creates(&home.is("bob"), &format!("b{number}"))
            .await
            .unwrap();
    }
    for number in 0..9 {
        home.creates(&home.admin, &format!("c{number}"))
            .await
            .unwrap();
    }
    clock.advance(Duration::from_mins(1));
    home.creates(&anna, "a5").await.unwrap();
    assert!(home.creates(&anna, "a6").await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_configuration_says_what_built_in_roles_may_take_and_users_may_differ() {
    let folder = folder();
    let home = open_at(folder.path(), Clock::manual(NOON), |config| {
        let texts = ["creations=1/1h".to_owned()];
        let few = Quota::of_texts(&texts, |_, message| panic!("{message}"));
        config.callers = RoleQuotas(BuiltIn::ALL.map(|role| match role {
            BuiltIn::User => (role, few),
            _ => (role, Quota::NONE),
        }));
    })
    .await;
    let shown = home.control.role(&home.admin, "user").await.unwrap();
    assert_eq!(shown.limits.creations, Some("1/1h".parse().unwrap()));
    home.makes_user(&home.admin, &json!({"name": "anna"}))
        .await
        .unwrap();
    let own = json!({"name": "bob", "limits": {}});
    home.makes_user(&home.admin, &own).await.unwrap();
    home.creates(&home.is("anna"), "a0").await.unwrap();
    assert!(home.creates(&home.is("anna"), "a1").await.is_err());
    for number in 0..3 {
        home.creates(&home.is("bob"), &format!("b{number}"))
            .await
            .unwrap();
    }
    let who = home.control.whoami(&home.is("anna")).await.unwrap();
    let said: Vec<(Limit, u32)> = who.levels.iter().map(|one| (one.limit, one.left)).collect();
    assert_eq!(said, [(Limit::Creations, 0)]);
    let query = json!({"user": "anna", "permission": "mcp:write", "service": "a0"});
    let query = AccessQuery::from_json(&query).unwrap();
    let why = home.control.explain(&home.admin, query).await.unwrap();
    assert_eq!((why.allowed, why.levels), (true, who.levels));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_lets_others_or_oneself_take_more_than_one_may_take() {
    let folder = folder();
    let home = open_at(folder.path(), Clock::manual(NOON), |_| {}).await;
    let manager = json!({"name": "manager", "permissions": ["users:read", "users:manage",
        "access:read", "access:manage"], "limits": {"calls": "10/1m"}});
    home.makes_role(&home.admin, &manager).await.unwrap();
    let eve = json!({"name": "eve", "roles": ["manager"]});
    home.makes_user(&home.admin, &eve).await.unwrap();
    let refused = |result: Result<(), Failure>| {
        let failure = result.unwrap_err();
        assert_eq!(failure.kind, Kind::NotPermitted, "{failure}");
        assert!(failure.detail.contains("has limits itself"), "{failure}");
    };
    let eve = home.is("eve");
    for limits in [
        json!({}),
        json!({"calls": "11/1m"}),
        json!({"requests": "1/1m"}),
    ] {
        let own = json!({"name": "eve", "roles": ["manager"], "limits": limits});
        refused(home.changes_user(&eve, &own).await);
        let other = json!({"name": "mallory", "roles": ["manager"], "limits": limits});
        refused(home.makes_user(&eve, &other).await);
        let role = json!({"name": "free", "permissions": ["users:read"], "limits": limits});
        refused(home.makes_role(&eve, &role).await);
    }
    refused(
        home.makes_user(&eve, &json!({"name": "mallory", "roles": []}))
            .await,
    );
    // What is as it was, or less, stays possible.
    let titled = json!({"name": "eve", "roles": ["manager"], "title": "Eve"});
    home.changes_user(&eve, &titled).await.unwrap();
    let less = json!({"name": "bob", "roles": ["manager"], "limits": {"calls": "1/1m"}});
    home.makes_user(&eve, &less).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_was_not_created_is_not_counted() {
    let folder = folder();
    let home = open_at(folder.path(), Clock::manual(NOON), |_| {}).await;
    let most = json!({"name": "anna", "roles": ["user"], "limits": {"creations": "64/1h"}});
    home.makes_user(&home.admin, &most).await.unwrap();
    let anna = home.is("anna");
    // Those that find the name free when they begin are refused by the store.
    let mut racing = tokio::task::JoinSet::new();
    for _ in 0..32 {
        let (control, anna) = (home.control.clone(), anna.clone());
        let change = Change::create(&demo("same")).unwrap();
        racing.spawn(async move { control.submit(&anna, change).await.is_ok() });
    }
    let created = racing.join_all().await;
    assert_eq!(created.into_iter().filter(|made| *made).count(), 1);
    let who = home.control.whoami(&anna).await.unwrap();
    assert_eq!(who.levels[0].left, 63);
}
