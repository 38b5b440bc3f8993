//! The files of the logs: one thread writes them all, rotates them by size, and is waited for by
//! nobody.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Read, Seek, SeekFrom, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use vaxel_core::time::Timestamp;

use super::{LogLine, Stream};

/// Lines that wait for the disk; further ones are left out and counted.
const QUEUE: usize = 4096;
/// How much of an earlier run's file is read to fill a tail.
const RECOVER_BYTES: u64 = 256 * 1024;

/// The way to the thread, which starts with the first line. Cheap to clone; the thread ends with the last
/// one.
#[derive(Clone)]
pub(crate) struct Writer {
    inner: Arc<Inner>,
}

struct Inner {
    rotation: Rotation,
    entries: OnceLock<SyncSender<Entry>>,
    lost: Arc<AtomicU64>,
}

enum Entry {
    Line {
        name: String,
        text: String,
    },
    /// Answered when everything before it is on its way to the disk.
    Flush(SyncSender<()>),
}

/// Where the files are and how large they get.
#[derive(Debug, Clone)]
pub(crate) struct Rotation {
    pub(crate) dir: PathBuf,
    /// Bytes after which a file is rotated.
    pub(crate) max_bytes: u64,
    /// Rotated files that are kept beside the current one.
    pub(crate) files: u32,
}

impl Writer {
    pub(crate) fn new(rotation: Rotation) -> Self {
        let inner = Inner {
            rotation,
            entries: OnceLock::new(),
            lost: Arc::default(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Hands a line over, or counts it as lost when the disk is slower than the log.
    pub(crate) fn write(&self, name: &str, text: String) {
        let line = Entry::Line {
            name: name.to_owned(),
            text,
        };
        let entries = self.inner.entries.get_or_init(|| self.inner.start());
        if entries.try_send(line).is_err() {
            self.inner.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Blocks until what was handed over is written, at most `within`.
    pub(crate) fn flush(&self, within: Duration) {
        let Some(entries) = self.inner.entries.get() else {
            return;
        };
        let (done, answer) = sync_channel(1);
        if entries.try_send(Entry::Flush(done)).is_ok() {
            // Not in time, or the thread is gone: the lines may be missing, nothing else is.
            let _ = answer.recv_timeout(within);
        }
    }
}

impl Inner {
    fn start(&self) -> SyncSender<Entry> {
        let (entries, queue) = sync_channel(QUEUE);
        let files = Files {
            rotation: self.rotation.clone(),
            open: HashMap::new(),
            failed: false,
        };
        let counter = Arc::clone(&self.lost);
        let thread = thread::Builder::new().name("vaxel-logs".to_owned());
        if let Err(error) = thread.spawn(move || files.run(&queue, &counter)) {
            // The queue is closed then: every line is counted as lost, tails and followers work.
            tracing::error!(%error, "The thread that writes log files could not be started");
        }
        entries
    }
}

struct Files {
    rotation: Rotation,
    open: HashMap<String, Open>,
    /// A failure was reported; the next success clears it.
    failed: bool,
}

struct Open {
    file: BufWriter<File>,
    size: u64,
}

impl Files {
    fn run(mut self, queue: &Receiver<Entry>, lost: &AtomicU64) {
        while let Ok(first) = queue.recv() {
            let mut next = Some(first);
            while let Some(entry) = next {
                self.take(entry, lost);
                next = queue.try_recv().ok();
            }
            self.flush();
        }
    }

    fn take(&mut self, entry: Entry, lost: &AtomicU64) {
        match entry {
            Entry::Line { name, text } => {
                let missing = lost.swap(0, Ordering::Relaxed);
                if missing > 0 {
                    let note =
                        format!("[the disk was slow: {missing} lines of all logs are missing]");
                    self.write(&name, &note);
                }
                self.write(&name, &text);
            }
            Entry::Flush(done) => {
                self.flush();
                // Whoever asked did not wait long enough.
                let _ = done.try_send(());
            }
        }
    }

    fn write(&mut self, name: &str, text: &str) {
        let result = self.try_write(name, text);
        self.note(name, result);
    }

    fn try_write(&mut self, name: &str, text: &str) -> io::Result<()> {
        let open = self.with_room(name)?;
        open.file.write_all(text.as_bytes())?;
        open.file.write_all(b"\n")?;
        open.size += text.len() as u64 + 1;
        Ok(())
    }

    /// The file that takes the next line. A full one is put aside only now, so that the last lines
    /// are always found under the first name.
    fn with_room(&mut self, name: &str) -> io::Result<&mut Open> {
        let mut open = match self.open.remove(name) {
            Some(open) => open,
            None => Open::at(&self.rotation.current(name))?,
        };
        if open.size >= self.rotation.max_bytes {
            open.file.flush()?;
            self.rotation.rotate(name)?;
            open = Open::at(&self.rotation.current(name))?;
        }
        Ok(self
            .open
            .entry(name.to_owned())
            .insert_entry(open)
            .into_mut())
    }

    fn flush(&mut self) {
        let failed = self
            .open
            .iter_mut()
            .find_map(|(name, open)| open.file.flush().err().map(|error| (name.clone(), error)));
        if let Some((name, error)) = failed {
            self.note(&name, Err(error));
        }
        // Idle services hold no descriptors.
        self.open.clear();
    }

    /// Reports the first failure of a row; the tail in memory goes on without the disk.
    fn note(&mut self, name: &str, result: io::Result<()>) {
        match result {
            Ok(()) => self.failed = false,
            Err(error) => {
                self.open.remove(name);
                if !self.failed {
                    let file = self.rotation.current(name);
                    tracing::warn!(%error, file = %file.display(), "A log file cannot be written");
                }
                self.failed = true;
            }
        }
    }
}

impl Open {
    fn at(path: &Path) -> io::Result<Self> {
        // Not recursively: a folder that was removed with everything above it is not wanted back.
        if let Some(dir) = path.parent()
            && let Err(error) = fs::DirBuilder::new().mode(0o700).create(dir)
            && error.kind() != io::ErrorKind::AlreadyExists
        {
            return Err(error);
        }
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)?;
        let size = file.metadata()?.len();
        Ok(Self {
            file: BufWriter::new(file),
            size,
        })
    }
}

impl Rotation {
    pub(crate) fn current(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{}.log", file_name(name)))
    }

    fn rotated(&self, name: &str, number: u32) -> PathBuf {
        self.dir.join(format!("{}.log.{number}", file_name(name)))
    }

    fn rotate(&self, name: &str) -> io::Result<()> {
        for number in (1..self.files).rev() {
            rename_if_there(&self.rotated(name, number), &self.rotated(name, number + 1))?;
        }
        if self.files == 0 {
            return fs::remove_file(self.current(name));
        }
        rename_if_there(&self.current(name), &self.rotated(name, 1))
    }
}

fn rename_if_there(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// `name` without anything that means something in a path.
fn file_name(name: &str) -> String {
    name.chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '-' || c == '_' {
                c
            } else {
                '_'
            }
        })
        .collect()
}

/// The last lines that an earlier run left in the file of `name`, oldest first. Nothing when the
/// file cannot be read: a log is no reason to fail.
pub(crate) fn recover(rotation: &Rotation, name: &str) -> Vec<LogLine> {
    read_end(&rotation.current(name)).map_or_else(
        |_| Vec::new(),
        |text| text.lines().filter_map(parse).collect(),
    )
}

fn read_end(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(RECOVER_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(RECOVER_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Reads a line as [`LogLine`]'s `Display` writes it.
fn parse(line: &str) -> Option<LogLine> {
    let (at, rest) = line.split_once(' ')?;
    let (source, text) = rest.split_once(' ')?;
    let (stream, replica) = source.strip_suffix(']')?.split_once('[')?;
    let at: Timestamp = serde_json::from_value(at.into()).ok()?;
    Some(LogLine {
        at,
        replica: replica.parse().ok()?,
        stream: Stream::parse(stream)?,
        text: text.to_owned(),
    })
}
