//! What Vaxel and a shim say to each other over their socket: length-prefixed JSON.
//!
//! The order travels here and not as arguments or environment, because those can be read by every
//! process of the same user for as long as the shim lives.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    path::PathBuf,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use zeroize::{Zeroize, Zeroizing};

use crate::{SandboxReport, sandbox::Hiding};

/// Longest message in bytes. Linux takes at most 2 MiB of arguments and environment by default.
const MESSAGE_MAX: usize = 8 << 20;

/// From Vaxel to the shim.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ToShim {
    /// The first message.
    Start(Box<StartOrder>),
    /// SIGTERM to every process of the tree.
    Terminate,
    /// SIGKILL to every process of the tree, until none is left.
    Kill,
}

/// From the shim to Vaxel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FromShim {
    Started {
        pid: u32,
        sandbox: SandboxReport,
    },
    Refused(Refusal),
    Exited {
        code: Option<i32>,
        signal: Option<i32>,
    },
}

/// What to run, as the shim needs it.
#[derive(Serialize, Deserialize)]
pub(crate) struct StartOrder {
    pub(crate) program: String,
    pub(crate) args: Vec<String>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) cwd: Option<PathBuf>,
    pub(crate) open_files: Option<u64>,
    pub(crate) hiding: Hiding,
    /// Files to which the shim writes its pid before the start, so that the child begins there.
    pub(crate) join: Vec<PathBuf>,
    /// Files to which it writes its pid afterwards, so that it is not counted or killed itself.
    pub(crate) leave: Vec<PathBuf>,
}

impl Drop for StartOrder {
    fn drop(&mut self) {
        for value in self.env.values_mut() {
            value.zeroize();
        }
        for arg in &mut self.args {
            arg.zeroize();
        }
    }
}

/// Why the shim did not start the program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Refusal {
    NotFound {
        place: String,
    },
    Denied {
        why: String,
    },
    BadCwd {
        cwd: PathBuf,
        why: String,
    },
    BadOrder {
        why: String,
    },
    Failed {
        doing: String,
        errno: Option<i32>,
        why: String,
    },
}

pub(crate) fn encode(message: &impl Serialize) -> io::Result<Zeroizing<Vec<u8>>> {
    // Reserved at once where it matters little and grows where it must: copies that growing leaves
    // behind are the allocator's, inside this process.
    let mut bytes = Zeroizing::new(vec![0; 4]);
    serde_json::to_writer(&mut *bytes, message)?;
    let length = bytes.len() - 4;
    let prefix = u32::try_from(length).ok().filter(|_| length <= MESSAGE_MAX);
    let prefix =
        prefix.ok_or_else(|| io::Error::other("arguments and environment are over 8 MiB"))?;
    bytes[..4].copy_from_slice(&prefix.to_le_bytes());
    Ok(bytes)
}

fn length(prefix: [u8; 4]) -> io::Result<usize> {
    usize::try_from(u32::from_le_bytes(prefix))
        .ok()
        .filter(|length| *length <= MESSAGE_MAX)
        .ok_or_else(|| io::Error::other("a message over 8 MiB"))
}

/// Writes a message; blocks.
pub(crate) fn send_blocking(mut to: impl Write, message: &impl Serialize) -> io::Result<()> {
    to.write_all(&encode(message)?)
}

/// Reads the next message; `None` at a clean end. Blocks.
pub(crate) fn receive_blocking<T: DeserializeOwned>(mut from: impl Read) -> io::Result<Option<T>> {
    let mut prefix = [0; 4];
    match from.read_exact(&mut prefix) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let mut bytes = Zeroizing::new(vec![0; length(prefix)?]);
    from.read_exact(&mut bytes)?;
    Ok(Some(serde_json::from_slice(&bytes)?))
}

/// Writes bytes that [`encode`] made.
pub(crate) async fn send(mut to: impl AsyncWrite + Unpin, bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes).await
}

/// Reads the next message; `None` at a clean end. Not cancel-safe.
pub(crate) async fn receive<T: DeserializeOwned>(
    mut from: impl AsyncRead + Unpin,
) -> io::Result<Option<T>> {
    let mut prefix = [0; 4];
    match from.read_exact(&mut prefix).await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    };
    let mut bytes = Zeroizing::new(vec![0; length(prefix)?]);
    from.read_exact(&mut bytes).await?;
    Ok(Some(serde_json::from_slice(&bytes)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_message_is_read_as_it_was_written() {
        let message = FromShim::Exited {
            code: Some(3),
            signal: None,
        };
        let mut bytes = Vec::new();
        send_blocking(&mut bytes, &message).unwrap();
        assert_eq!(receive_blocking(&bytes[..]).unwrap(), Some(message));
        assert_eq!(receive_blocking::<FromShim>(&b""[..]).unwrap(), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            // Only the absence of a panic and of a huge allocation is asked here.
            let _ = receive_blocking::<FromShim>(&bytes[..]);
        }
    }
}
