//! What someone asked for: which checks of a service there are, and what may be done about bad ones.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::{Map, Value};
use url::Url;

use super::expect::Expectation;
use crate::quantity::{Size, Span};

/// The health checks of one service. What is absent comes from the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct HealthSpec {
    /// Between two checks of one instance, 1s to 1d; the real wait lies within a tenth of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "30s")]
    pub interval: Option<Span>,
    /// Longest wait for one answer, 10ms to 10m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "10s")]
    pub timeout: Option<Span>,
    /// So many passes in a row make what was down count as up, 1 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rise: Option<u32>,
    /// So many failures in a row make what was up count as down, 1 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fall: Option<u32>,
    /// Tools that are called to see whether they do what they should, at most 16. They must be free of
    /// effects: each is called at every check of every instance, and before a new revision takes over,
    /// which it does once they all pass.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub functional: Vec<FunctionalCheck>,
    /// What calls and processes may cost before the service counts as degraded.
    #[serde(default, skip_serializing_if = "is_default")]
    pub performance: PerformanceLimits,
    /// What the service needs besides itself, at most 16; one that is away degrades it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dependency: Vec<Dependency>,
    /// What is looked at around the service.
    #[serde(default, skip_serializing_if = "is_default")]
    pub security: SecurityChecks,
    /// What may be done about an instance that does not work.
    #[serde(default, skip_serializing_if = "is_default")]
    pub recovery: RecoverySpec,
}

/// A tool that is called to see whether it does what it should.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct FunctionalCheck {
    /// The service's own name of the tool.
    pub tool: String,
    /// What it is called with. Kept and shown as it stands: not for secrets.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    #[schema(value_type = Object)]
    pub arguments: Map<String, Value>,
    /// What it should answer; by default anything that is no error. The tool's output schema counts in
    /// any case.
    #[serde(default, skip_serializing_if = "is_default")]
    pub expect: Expectation,
}

/// Above which figures a service counts as degraded. What is absent is not judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PerformanceLimits {
    /// Half of the calls take longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "200ms")]
    pub p50: Option<Span>,
    /// One call in twenty takes longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "2s")]
    pub p95: Option<Span>,
    /// Share of calls that do not end well, errors of tools included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "5%")]
    pub error_rate: Option<Percent>,
    /// Use of the processor by the process tree between two checks, in per cent of one processor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "90%")]
    pub cpu: Option<Percent>,
    /// Memory of the process tree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "400MiB")]
    pub memory: Option<Size>,
    /// Over which time calls are judged, 10s to 1d; default 5m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "5m")]
    pub window: Option<Span>,
}

impl PerformanceLimits {
    /// Default of [`PerformanceLimits::window`].
    pub const WINDOW: Duration = Duration::from_mins(5);

    /// Whether calls are judged.
    pub const fn of_calls(&self) -> bool {
        self.p50.is_some() || self.p95.is_some() || self.error_rate.is_some()
    }

    /// Whether the process tree is judged.
    pub const fn of_processes(&self) -> bool {
        self.cpu.is_some() || self.memory.is_some()
    }

    /// Over which time calls are judged.
    pub fn window(&self) -> Duration {
        self.window.map_or(Self::WINDOW, |span| span.0)
    }
}

/// Something that a service needs besides itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Dependency {
    /// An address that answers a GET with a status below 400.
    Url(String),
    /// `host:port` that accepts connections.
    Tcp(String),
}

impl Dependency {
    /// Where it is looked for; none when it is no address.
    pub fn url(&self) -> Option<Url> {
        match self {
            Self::Url(url) => url.parse().ok(),
            Self::Tcp(address) => tcp_url(address),
        }
    }
}

/// An address as the URL that leads to it; none when it is no host and port.
fn tcp_url(address: &str) -> Option<Url> {
    let (host, port) = address.rsplit_once(':')?;
    let port: u16 = port.parse().ok()?;
    let plain = !host.is_empty() && !host.contains(['/', '?', '#', '@', ' ', '\\']);
    let url = Url::parse(&format!("http://{host}:{port}/")).ok()?;
    (plain && port != 0).then_some(url)
}

impl fmt::Display for Dependency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(address) | Self::Tcp(address) => f.write_str(address),
        }
    }
}

/// What is looked at around a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default)]
pub struct SecurityChecks {
    /// Whether definitions are still those that were accepted; default true.
    pub definitions: bool,
    /// Warn when a certificate or token ends within this time, 0s to 365d; default 14d.
    #[schema(value_type = String, example = "14d", default = "14d")]
    pub expiry: Span,
    /// Whether to warn of a server elsewhere that asks for no credential, or gets one in clear;
    /// default true.
    pub unauthenticated: bool,
}

impl Default for SecurityChecks {
    fn default() -> Self {
        Self {
            definitions: true,
            expiry: Span(Duration::from_hours(14 * 24)),
            unauthenticated: true,
        }
    }
}

/// What may be done about an instance that does not work, and how often.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RecoverySpec {
    /// What is tried, in this order; what cannot be done with a service is passed over. An empty list:
    /// nothing. Default: eject, reinitialise, restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actions: Option<Vec<RecoveryAction>>,
    /// So many attempts within `window`, 0 to 1000; then the instance is left as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<u32>,
    /// The time that `budget` is for, 1s to 7d.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "1h")]
    pub window: Option<Span>,
    /// Between the first attempt and the second, 0s to 1d; it doubles with every further one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "10s")]
    pub backoff: Option<Span>,
}

/// Something that may be done about an instance that does not work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RecoveryAction {
    /// It gets no calls while others of its service work. Costs nothing of the budget.
    Eject,
    /// The connection to a remote server is made anew.
    Reinitialise,
    /// The process is ended and started again.
    Restart,
    /// New instances of the service take over from the old ones.
    Replace,
}

impl RecoveryAction {
    /// Every action.
    pub const ALL: [Self; 4] = [
        Self::Eject,
        Self::Reinitialise,
        Self::Restart,
        Self::Replace,
    ];

    /// The name in specs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Eject => "eject",
            Self::Reinitialise => "reinitialise",
            Self::Restart => "restart",
            Self::Replace => "replace",
        }
    }
}

impl FromStr for RecoveryAction {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|one| one.as_str() == text);
        found.ok_or_else(|| {
            let known = Self::ALL.map(Self::as_str).join(", ");
            format!("`{text}` is nothing that can be done about an instance: known are {known}")
        })
    }
}

/// A share written as `5%` or `0.5%`; a bare number is per cent, too. Exact to hundredths of a per cent.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Percent(u32);

impl Percent {
    /// From hundredths of a per cent.
    pub const fn from_hundredths(hundredths: u32) -> Self {
        Self(hundredths)
    }

    /// `part` of `whole`; zero when there is no whole.
    pub fn of(part: u64, whole: u64) -> Self {
        let hundredths = (u128::from(part) * 10_000).checked_div(u128::from(whole));
        let hundredths = hundredths.unwrap_or(0);
        Self(u32::try_from(hundredths).unwrap_or(u32::MAX))
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0 / 100, self.0 % 100);
        match (rest, rest % 10) {
            (0, _) => write!(f, "{whole}%"),
            (_, 0) => write!(f, "{whole}.{}%", rest / 10),
            _ => write!(f, "{whole}.{rest:02}%"),
        }
    }
}

impl fmt::Debug for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Percent {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("`{text}` is not a share: write 5% or 0.5%");
        let number = text.strip_suffix('%').unwrap_or(text).trim_end();
        let (whole, rest) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(rest) || rest.len() > 2 {
            return Err(wrong());
        }
        let rest: u32 = format!("{rest:0<2}").parse().map_err(|_| wrong())?;
        let whole: u32 = whole.parse().map_err(|_| wrong())?;
        let all = whole.checked_mul(100).and_then(|all| all.checked_add(rest));
        all.map(Self).ok_or_else(wrong)
    }
}

impl Serialize for Percent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// How checks are made: a spec with the configuration behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Between two checks of one instance.
    pub interval: Duration,
    /// Longest wait for one answer.
    pub timeout: Duration,
    /// Passes in a row that make what was down count as up.
    pub rise: u32,
    /// Failures in a row that make what was up count as down.
    pub fall: u32,
    /// What may be done about an instance that does not work, in this order.
    pub actions: Vec<RecoveryAction>,
    /// So many attempts within the window.
    pub budget: u32,
    /// The time that the budget is for.
    pub window: Duration,
    /// Between the first attempt and the second.
    pub backoff: Duration,
}

impl Default for Rules {
    fn default() -> Self {
        use RecoveryAction::{Eject, Reinitialise, Restart};
        Self {
            interval: Duration::from_secs(30),
            timeout: Duration::from_secs(10),
            rise: 1,
            fall: 3,
            actions: vec![Eject, Reinitialise, Restart],
            budget: 5,
            window: Duration::from_hours(1),
            backoff: Duration::from_secs(10),
        }
    }
}

impl Rules {
    /// These rules, where `spec` does not say otherwise.
    pub fn with(&self, spec: &HealthSpec) -> Self {
        let span = |given: Option<Span>, default| given.map_or(default, |span| span.0);
        let recovery = &spec.recovery;
        let actions = recovery.actions.as_ref();
        let interval = span(spec.interval, self.interval);
        Self {
            interval,
            // Whoever asks more often than an answer takes never hears one.
            timeout: span(spec.timeout, self.timeout.min(interval)),
            rise: spec.rise.unwrap_or(self.rise),
            fall: spec.fall.unwrap_or(self.fall),
            actions: actions.unwrap_or(&self.actions).clone(),
            budget: recovery.budget.unwrap_or(self.budget),
            window: span(recovery.window, self.window),
            backoff: span(recovery.backoff, self.backoff),
        }
    }

    /// The wait before the next check, for a random number: the interval, more or less by up to a tenth,
    /// so that services that were started together are not checked together.
    pub fn next_wait(&self, random: u32) -> Duration {
        let share = f64::from(random) / f64::from(u32::MAX);
        self.interval.mul_f64(0.9 + 0.2 * share)
    }
}

/// Whether everything is as it is when nothing is said.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn people_write_shares() {
        let read = |text: &str| text.parse::<Percent>().map(|share| share.0).ok();
        assert_eq!(
            (read("5%"), read("0.5 %"), read("12.34")),
            (Some(500), Some(50), Some(1_234))
        );
        assert_eq!((read("200%"), read("0")), (Some(20_000), Some(0)));
        for wrong in ["", "%", "-1%", "1.234%", "5 per cent", ".5", "99999999999%"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
        assert_eq!(Percent::of(1, 3).to_string(), "33.33%");
        assert_eq!(Percent::of(1, 0).to_string(), "0%");
    }

    proptest! {
        #[test]
        fn a_share_is_read_back_as_it_was_written(hundredths: u32) {
            let share = Percent(hundredths);
            prop_assert_eq!(share.to_string().parse(), Ok(share));
        }

        #[test]
        fn waits_lie_within_a_tenth_of_the_interval(random: u32, seconds in 1_u64..100_000) {
            let interval = Duration::from_secs(seconds);
            let rules = Rules { interval, ..Rules::default() };
            let wait = rules.next_wait(random);
            prop_assert!(wait >= interval.mul_f64(0.899) && wait <= interval.mul_f64(1.101));
        }
    }
}
