//! Sign-ins: a name and a password become an access token, which is good for some minutes, and a refresh
//! token, which is good once and gets the next two.
//!
//! A refresh token is `vxr_<sign-in>_<family>_<secret>`. The family stays the same as long as the sign-in
//! holds: whoever shows it with another secret than the newest has a token that was used already, so that
//! somebody has stolen one, and the sign-in ends.

use std::{fmt, net::IpAddr, sync::Arc, time::Duration};

use serde_json::json;
use vaxel_auth::{
    bearer::{self, Bearer, Grant},
    digest,
    oauth::endpoint::Endpoint,
    password::Check,
    random,
};
use vaxel_core::{
    access::require,
    audit::{Came, Door, Outcome as End},
    failure::{Failure, Kind},
    id::{Call, Id, SignIn},
    name::{UserName, printable},
    principal::{Permission, Permissions, Principal},
    secret::Secret,
    user::{UserKind, UserResource},
};
use vaxel_store::{Delegation, Error as StoreError, PasswordRow, SignInRow};

use crate::{
    change::Outcome, control::Control, oauth::audited, password::check_new, rights::Person,
};

const MARK: &str = "vxr_";
/// Letters of the family and of the secret, 5.95 bits each.
const LETTERS: usize = 32;
/// Longest text that is kept of what a program says it is, characters.
const AGENT_MAX: usize = 200;
/// The answer to whoever cannot sign in, whatever the reason.
const REFUSED: &str =
    "The name or the password is wrong; after some wrong ones none is taken for a while";
/// The answer to a refresh token that is not good.
const NOT_RENEWED: &str = "The refresh token is not known here, was used already, or its sign-in has ended; \
                           sign in again";

/// Action of the end of a sign-in whose token came a second time.
const REUSED: &str = "user.token_reused";
/// The same about a code of a log-in.
pub(crate) const CODE_REUSED: &str = "oauth.code_reused";

/// A name with a password, and where they come from.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The user's name.
    pub name: String,
    /// The user's password.
    pub password: Secret<String>,
    /// Another one from now on; needed when the password was set by somebody else.
    pub new_password: Option<Secret<String>>,
}

/// Where a request comes from.
#[derive(Debug, Clone)]
pub struct Origin {
    /// The address.
    pub address: IpAddr,
    /// What the program says it is.
    pub agent: String,
    /// Names the request.
    pub request: Option<Id<Call>>,
}

/// What a sign-in gives.
#[derive(Debug, Clone)]
pub struct SignedIn {
    /// Goes with requests: a JSON Web Token.
    pub access: Secret<String>,
    /// How long that is good.
    pub expires_in: Duration,
    /// Gets the next two tokens; good once.
    pub refresh: Secret<String>,
    /// The sign-in.
    pub id: Id<SignIn>,
    /// Who signed in.
    pub user: UserResource,
    /// What the tokens let through, when they are a client's.
    pub permissions: Option<Permissions>,
}

/// A refresh token as it was shown.
struct Shown {
    id: Id<SignIn>,
    family: String,
    digest: [u8; 32],
}

impl Origin {
    /// The same for the audit.
    pub(crate) fn came(&self) -> Arc<Came> {
        Arc::new(Came {
            address: self.address,
            door: Door::of_agent(&self.agent),
            request: self.request,
            sign_in: None,
        })
    }
}

impl Control {
    /// Signs somebody in.
    ///
    /// # Errors
    /// `Unauthenticated`, with the same text and after the same work whatever the reason; `Busy` when too many
    /// passwords are checked or the address gave too many wrong ones; `NotPermitted` when the password is
    /// right and must be changed; `Invalid` when the new one cannot be.
    pub async fn sign_in(
        &self,
        credentials: Credentials,
        origin: Origin,
    ) -> Result<SignedIn, Failure> {
        let lasts = self.inner.context.config.tokens.sign_in;
        self.sign_in_for(credentials, origin, lasts).await
    }

    /// The same for so long, if it is not renewed before.
    pub(crate) async fn sign_in_for(
        &self,
        credentials: Credentials,
        origin: Origin,
        lasts: Duration,
    ) -> Result<SignedIn, Failure> {
        if let Some(wait) = self.inner.guesses.wait(origin.address, self.now()) {
            let seconds = u32::try_from(wait.as_secs() + 1).unwrap_or(u32::MAX);
            let detail = "Too many wrong passwords came from this address";
            return Err(Failure::new(Kind::Busy, detail).retry_after(seconds));
        }
        let control = self.clone();
        // Finished even when nobody waits: who hangs up saves himself no failure.
        let working = self.inner.changes.spawn(async move {
            let (person, row) = control.proven(&credentials, &origin).await?;
            let Credentials {
                password,
                new_password,
                ..
            } = credentials;
            let caller = acting_from(&person.user, &origin);
            control
                .renew_password((&caller, &person.user), &row, (password, new_password))
                .await?;
            let id = Id::new(control.now());
            control
                .open_sign_in(&person, (id, "password", None), (origin, lasts))
                .await
        });
        working.await.map_err(Failure::internal)?
    }

    /// The next two tokens of a sign-in.
    ///
    /// # Errors
    /// `Unauthenticated`; a token that was used before ends its sign-in.
    pub async fn renew(&self, token: &str, origin: Origin) -> Result<SignedIn, Failure> {
        self.renew_for(token, None, origin).await
    }

    /// The same for a client: tokens that were left to one are renewed by no other, and not without one. It may
    /// want less than it was left, for this access token only (RFC 6749 §6).
    pub(crate) async fn renew_for(
        &self,
        token: &str,
        client: Option<(&str, Option<Permissions>)>,
        origin: Origin,
    ) -> Result<SignedIn, Failure> {
        let refused = || Failure::new(Kind::Unauthenticated, NOT_RENEWED);
        let shown = Shown::read(token).ok_or_else(refused)?;
        let row = self.store().sign_in(shown.id).await?.ok_or_else(refused)?;
        let family = digest::sha256(shown.family.as_bytes());
        let now = self.now();
        let is_over = row.ended_at.is_some() || row.expires_at <= now;
        let mut delegated = row.delegation.clone();
        let is_its = delegated.as_ref().map(|one| one.client.as_str()) == client.map(|one| one.0);
        if !digest::are_equal(&family, &row.family) || is_over || !is_its {
            return Err(refused());
        }
        if let (Some(delegated), Some((_, Some(wanted)))) = (&mut delegated, client) {
            delegated.permissions = wanted;
        }
        let person = self.inner.people.with_id(row.user).ok_or_else(refused)?;
        let (text, made) = shown.next();
        let expires_at = now.plus(self.inner.context.config.tokens.sign_in);
        let renewed = if digest::are_equal(&shown.digest, &row.refresh) {
            let tokens = (row.refresh, made.digest);
            self.store()
                .renew_sign_in(row.id, tokens, (now, expires_at))
                .await
        } else {
            Err(StoreError::Changed)
        };
        match renewed {
            Ok(()) => self.signed_in(&person, (row.id, delegated.as_ref()), text),
            Err(StoreError::Changed) => {
                self.end_reused(&person.user, &row, &origin).await?;
                Err(refused())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The sign-ins of a user that hold, newest first. `users:read`, except of oneself.
    pub async fn sign_ins(
        &self,
        caller: &Principal,
        user: Option<&str>,
    ) -> Result<Vec<SignInRow>, Failure> {
        let own = caller.rights.user().map(UserName::as_str);
        let Some(name) = user.or(own) else {
            return Ok(Vec::new());
        };
        let user = self.user(caller, name).await?;
        Ok(self.store().sign_ins(user.id, self.now()).await?)
    }

    /// Ends a sign-in. `users:manage`, except of one's own.
    pub(crate) async fn end_sign_in(
        &self,
        caller: &Principal,
        id: Id<SignIn>,
    ) -> Result<Outcome, Failure> {
        let unknown = || Failure::new(Kind::NotFound, "There is no such sign-in");
        let manages = caller.permissions.contains(Permission::UsersManage);
        let row = self.store().sign_in(id).await?;
        let user = match &row {
            Some(row) => self.store().user_by_id(row.user).await?,
            None => None,
        };
        let own = caller.rights.user();
        let is_own = user.as_ref().is_some_and(|user| own == Some(&user.name));
        if !is_own && !manages {
            // Who may not end it does not learn whether it is there.
            require(caller, Permission::UsersManage)?;
        }
        let user = user.ok_or_else(unknown)?;
        if !is_own {
            self.may_change(caller, &user).await?;
        }
        self.end(caller, &user, (id, "user.sign_out"))
            .await
            .map_err(|error| match error {
                StoreError::Missing => unknown(),
                error => error.into(),
            })?;
        self.sign_ins_ended().await?;
        Ok(Outcome::Done)
    }

    /// Ends every sign-in of a user but `keep`.
    pub(crate) async fn end_all(
        &self,
        caller: &Principal,
        user: &UserResource,
        keep: Option<Id<SignIn>>,
    ) -> Result<(), Failure> {
        let target = ("user", user.id.to_string(), user.name.to_string());
        let audit = self.line(caller, "user.sign_out_everywhere", target);
        self.store().end_sign_ins(user.id, keep, audit).await?;
        self.sign_ins_ended().await
    }

    /// Who it is, when the password is right and nothing else stands in the way. The same reads, the same hash
    /// and the same write whoever it is.
    async fn proven(
        &self,
        credentials: &Credentials,
        origin: &Origin,
    ) -> Result<(Person, PasswordRow), Failure> {
        let person = self.inner.people.find(&credentials.name);
        let id = person
            .as_ref()
            .map_or_else(|| Id::new(self.now()), |one| one.user.id);
        let row = self.store().password(id).await?;
        let check = self
            .check_password(row.as_ref(), credentials.password.clone())
            .await?;
        let now = self.now();
        let is_locked = row
            .as_ref()
            .and_then(|row| row.locked_until)
            .is_some_and(|end| end > now);
        let why = match &person {
            None => Some("unknown"),
            Some(_) if is_locked => Some("locked"),
            Some(one) if !one.is_enabled() => Some("disabled"),
            Some(one) if one.user.kind == UserKind::Program => Some("program"),
            Some(_) if check == Check::Wrong => Some("wrong"),
            Some(_) => None,
        };
        match (why, person, row) {
            (None, Some(person), Some(row)) => Ok((person, row)),
            (why, person, _) => {
                self.inner.guesses.note_failure(origin.address, now);
                let user = person.as_ref().map(|one| &one.user);
                let detail = json!({ "why": why, "address": origin.address });
                let came = Some(origin.came());
                self.note_wrong((user, came), (why == Some("wrong"), detail))
                    .await?;
                Err(Failure::new(Kind::Unauthenticated, REFUSED))
            }
        }
    }

    /// Another password where one is given or needed, and the same one kept better where that is possible.
    async fn renew_password(
        &self,
        (caller, user): (&Principal, &UserResource),
        row: &PasswordRow,
        (password, new): (Secret<String>, Option<Secret<String>>),
    ) -> Result<(), Failure> {
        let Some(new) = new else {
            if row.must_change {
                let detail = "The password is right, but somebody else knows it: choose another one and send it \
                              as `new_password` with the same request";
                return Err(Failure::new(Kind::NotPermitted, detail));
            }
            if vaxel_auth::password::is_outdated(&row.kept) {
                self.keep_anew(row, password).await?;
            }
            return Ok(());
        };
        check_new(user, &new, "new_password")?;
        if new == password {
            let message = "must be another one than before";
            let issues = vec![vaxel_core::failure::Issue::new("new_password", message)];
            return Err(Failure::invalid("The new password", issues));
        }
        self.write_password(caller, user, (new, false)).await?;
        self.end_all(caller, user, None).await
    }

    /// Begins the sign-in of a client, to which a user left something; it shows a credential of this kind.
    pub(crate) async fn begin_delegated(
        &self,
        person: &Person,
        (id, delegation, credential): (Id<SignIn>, Delegation, &'static str),
        origin: Origin,
    ) -> Result<SignedIn, Failure> {
        let lasts = self.inner.context.config.tokens.sign_in;
        let begun = (id, credential, Some(delegation));
        self.open_sign_in(person, begun, (origin, lasts)).await
    }

    async fn open_sign_in(
        &self,
        person: &Person,
        (id, credential, delegation): (Id<SignIn>, &'static str, Option<Delegation>),
        (origin, lasts): (Origin, Duration),
    ) -> Result<SignedIn, Failure> {
        let now = self.now();
        let shown = Shown::invent(id);
        let (text, made) = shown.next();
        let caller = acting_from(&person.user, &origin);
        let Origin { address, agent, .. } = origin;
        let row = SignInRow {
            id: shown.id,
            user: person.user.id,
            created_at: now,
            last_used_at: now,
            expires_at: now.plus(lasts),
            ended_at: None,
            address: address.to_canonical().to_string(),
            agent: printable(&agent, AGENT_MAX),
            family: digest::sha256(shown.family.as_bytes()),
            refresh: made.digest,
            delegation,
        };
        let target = ("sign-in", row.id.to_string(), person.user.name.to_string());
        let mut audit = self.line(&caller, "user.sign_in", target);
        audit.credential = credential;
        audit.detail = json!({ "address": row.address, "agent": row.agent });
        if let Some(delegation) = &row.delegation {
            audit.action = "oauth.sign_in";
            audit.detail["delegation"] = audited(delegation);
        }
        match self.store().begin_sign_in(&row, audit).await {
            Ok(()) => self.signed_in(person, (row.id, row.delegation.as_ref()), text),
            // It was guessed at too often in the meantime.
            Err(StoreError::Changed) => Err(Failure::new(Kind::Unauthenticated, REFUSED)),
            Err(error) => Err(error.into()),
        }
    }

    fn signed_in(
        &self,
        person: &Person,
        (id, delegation): (Id<SignIn>, Option<&Delegation>),
        refresh: Secret<String>,
    ) -> Result<SignedIn, Failure> {
        let endpoint = delegation.map(|one| Endpoint::at(&one.endpoint));
        let endpoint =
            endpoint.map(|one| one.ok_or_else(|| Failure::internal("an endpoint that is none")));
        let endpoint = endpoint.transpose()?;
        let delegated = delegation.zip(endpoint.as_ref());
        let roles: Vec<String> = person.user.roles.iter().map(ToString::to_string).collect();
        let grant = Grant {
            server: &self.inner.context.config.server.url,
            user: person.user.id,
            name: person.user.name.as_str(),
            sign_in: id,
            roles: &roles,
            delegation: delegated.map(|(one, at)| (one.client.as_str(), at, one.permissions)),
        };
        let access = bearer::issue(&self.signer()?, &grant, self.now())?;
        Ok(SignedIn {
            access: Secret::new(access),
            expires_in: bearer::LIFETIME,
            refresh,
            id,
            user: person.user.clone(),
            permissions: delegation.map(|one| one.permissions),
        })
    }

    async fn end_reused(
        &self,
        user: &UserResource,
        row: &SignInRow,
        origin: &Origin,
    ) -> Result<(), Failure> {
        tracing::warn!(user.name = %user.name, address = %origin.address,
            "a refresh token was used twice: its sign-in is ended");
        self.end_quietly_as(&acting_from(user, origin), user, (row.id, REUSED))
            .await
    }

    /// Ends a sign-in in its user's name, unless it is over.
    pub(crate) async fn end_quietly(
        &self,
        user: &UserResource,
        end: (Id<SignIn>, &'static str),
    ) -> Result<(), Failure> {
        self.end_quietly_as(&acting(user), user, end).await
    }

    async fn end_quietly_as(
        &self,
        caller: &Principal,
        user: &UserResource,
        end: (Id<SignIn>, &'static str),
    ) -> Result<(), Failure> {
        match self.end(caller, user, end).await {
            Ok(()) => self.sign_ins_ended().await,
            // Another request has ended it.
            Err(StoreError::Missing) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// What a refresh token's user left to a client, when it is one.
    pub(crate) async fn delegation_of(&self, token: &str) -> Result<Option<Delegation>, Failure> {
        let Some(id) = self.refresh_of(token).await? else {
            return Ok(None);
        };
        let row = self.store().sign_in(id).await?;
        Ok(row.and_then(|row| row.delegation))
    }

    /// The sign-in of a refresh token, also of one that was used.
    pub(crate) async fn refresh_of(&self, token: &str) -> Result<Option<Id<SignIn>>, Failure> {
        let Some(shown) = Shown::read(token) else {
            return Ok(None);
        };
        let row = self.store().sign_in(shown.id).await?;
        let family = digest::sha256(shown.family.as_bytes());
        let row = row.filter(|row| digest::are_equal(&family, &row.family));
        Ok(row.map(|row| row.id))
    }

    async fn end(
        &self,
        caller: &Principal,
        user: &UserResource,
        (id, action): (Id<SignIn>, &'static str),
    ) -> Result<(), StoreError> {
        let target = ("sign-in", id.to_string(), user.name.to_string());
        let mut audit = self.line(caller, action, target);
        let refused = match action {
            REUSED => Some("token"),
            CODE_REUSED => Some("code"),
            _ => None,
        };
        if let Some(credential) = refused {
            audit.credential = credential;
            audit.outcome = End::Refused(Kind::Unauthenticated);
        }
        self.store().end_sign_in(id, audit).await
    }

    /// The sign-in of an access token that came with a request, when it came with one.
    pub fn sign_in_of(&self, token: Option<&str>) -> Option<Id<SignIn>> {
        let Bearer { sign_in, .. } = self.bearer(token?).ok()?;
        Some(sign_in)
    }
}

/// A user as the actor of what follows from its own password, whatever it may do.
pub(crate) fn acting(user: &UserResource) -> Principal {
    Principal {
        name: user.name.shared().clone(),
        ..Principal::system()
    }
}

/// The same, from where the request came.
fn acting_from(user: &UserResource, origin: &Origin) -> Principal {
    Principal {
        came: Some(origin.came()),
        ..acting(user)
    }
}

impl Shown {
    fn invent(id: Id<SignIn>) -> Self {
        Self {
            id,
            family: random::token(LETTERS),
            digest: [0; 32],
        }
    }

    /// The next token of the same family.
    fn next(&self) -> (Secret<String>, Self) {
        let secret = Secret::new(random::token(LETTERS));
        let text = format!("{MARK}{}_{}_{}", self.id, self.family, secret.expose());
        let made = Self {
            id: self.id,
            family: self.family.clone(),
            digest: digest::sha256(text.as_bytes()),
        };
        (Secret::new(text), made)
    }

    fn read(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix(MARK)?.split('_');
        let (id, family, secret) = (parts.next()?, parts.next()?, parts.next()?);
        let is_formed = |part: &str| {
            part.len() == LETTERS && part.bytes().all(|byte| byte.is_ascii_alphanumeric())
        };
        let is_whole = parts.next().is_none() && is_formed(family) && is_formed(secret);
        is_whole.then_some(Self {
            id: id.parse().ok()?,
            family: family.to_owned(),
            digest: digest::sha256(text.as_bytes()),
        })
    }
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "refresh token of {}", self.id)
    }
}

#[cfg(test)]
mod tests {
    use vaxel_core::time::Timestamp;

    use super::*;

    #[test]
    fn a_refresh_token_is_read_as_it_was_made_and_nothing_else_is() {
        let first = Shown::invent(Id::new(Timestamp::from_millis(1_800_000_000_000)));
        let (text, made) = first.next();
        let read = Shown::read(text.expose()).unwrap();
        assert_eq!(
            (read.id, &read.family, read.digest),
            (made.id, &made.family, made.digest)
        );
        let (other, _) = read.next();
        assert_ne!(other, text);
        let text = text.expose();
        for bad in [
            "",
            "vxr_",
            &text[1..],
            &text[..text.len() - 1],
            &format!("{text}_"),
            &format!("{text}a"),
        ] {
            assert!(Shown::read(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn what_a_program_says_it_is_cannot_break_a_line() {
        assert_eq!(
            printable("curl/8\r\nX: y\u{1b}[2J", AGENT_MAX),
            "curl/8X: y[2J"
        );
        assert_eq!(printable(&"x".repeat(500), AGENT_MAX).len(), AGENT_MAX);
    }
}
