//! The file of a backup.
//!
//! Its first line says what it is. Lines follow: files of the data directory, tables and their rows (see
//! [`vaxel_store::TableHead`]); the last one has the SHA-256 of everything before it. When there is a
//! passphrase, all lines but the first are sealed ([`vaxel_auth::passphrase`]) together with the first one.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read as _, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use vaxel_auth::{
    fingerprint::Running,
    passphrase::{Recipe, SealedReader, SealedWriter, StreamKey},
    root,
};
use vaxel_core::{
    failure::{Failure, Kind},
    secret::Secret,
    time::Timestamp,
};
use vaxel_store::{Lines, Schema, TableHead};

use super::kept::{Gathered, KeptService};

/// What every backup begins with.
const MAGIC: &[u8] = b"{\"vaxel_backup\":";
/// The format that is written and read here.
const FORMAT: u32 = 1;
/// Longest first line, bytes.
const HEAD_MAX: u64 = 4 << 10;
/// Longest other line, bytes: far above what a row holds.
const LINE_MAX: u64 = 1 << 30;
/// Files of the data directory that a backup with keys holds.
pub(super) const FILES: [&str; 3] = [root::FILE, root::OLD, "admin.key"];
/// Those of them that have the root keys.
pub(super) const ROOTS: [&str; 2] = [root::FILE, root::OLD];

/// The first line of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupHead {
    vaxel_backup: u32,
    /// The version that wrote it.
    pub vaxel: String,
    /// The engine that it was stored in.
    pub engine: String,
    /// When it was written, RFC 3339.
    pub created_at: String,
    /// How far the schema had come.
    pub schema: Schema,
    /// How its passphrase becomes a key; `None`: it holds no keys and is not sealed.
    pub keys: Option<Recipe>,
}

impl BackupHead {
    pub(super) fn new(
        vaxel: String,
        engine: String,
        created_at: Timestamp,
        schema: Schema,
    ) -> Self {
        Self {
            vaxel_backup: FORMAT,
            vaxel,
            engine,
            created_at: created_at.to_string(),
            schema,
            keys: None,
        }
    }
}

/// A file of the data directory.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileLine {
    file: String,
    bytes: Vec<u8>,
}

fn last_line(digest: &Running) -> Vec<u8> {
    format!("{{\"end\":\"{}\"}}", digest.text()).into_bytes()
}

/// Writes a backup.
pub(super) struct Writer<W: Write> {
    to: Body<W>,
    digest: Running,
}

enum Body<W: Write> {
    Plain(W),
    Sealed(Box<SealedWriter<W>>),
}

impl<W: Write> Writer<W> {
    pub(super) fn begin(mut to: W, head: &BackupHead, key: Option<&StreamKey>) -> io::Result<Self> {
        let mut line = serde_json::to_vec(head)?;
        line.push(b'\n');
        to.write_all(&line)?;
        let mut digest = Running::default();
        digest.add(&line);
        let to = match key {
            None => Body::Plain(to),
            Some(key) => Body::Sealed(Box::new(SealedWriter::new(to, key, &line))),
        };
        Ok(Self { to, digest })
    }

    pub(super) fn file(&mut self, name: &str, bytes: &Secret<Vec<u8>>) -> io::Result<()> {
        let mut line = Secret::new(serde_json::to_vec(&FileLine {
            file: name.to_owned(),
            bytes: bytes.expose().clone(),
        })?);
        line = Secret::new([line.expose(), &b"\n"[..]].concat());
        self.write_all(line.expose())
    }

    pub(super) fn finish(mut self) -> io::Result<W> {
        let mut last = last_line(&self.digest);
        last.push(b'\n');
        self.write_all(&last)?;
        match self.to {
            Body::Plain(to) => Ok(to),
            Body::Sealed(to) => to.finish(),
        }
    }
}

impl<W: Write> Write for Writer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = match &mut self.to {
            Body::Plain(to) => to.write(bytes),
            Body::Sealed(to) => to.write(bytes),
        }?;
        self.digest.add(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.to {
            Body::Plain(to) => to.flush(),
            Body::Sealed(to) => to.flush(),
        }
    }
}

/// A backup whose first line was read.
#[derive(Debug)]
pub struct BackupFile {
    path: PathBuf,
    line: Vec<u8>,
    head: BackupHead,
    key: Option<StreamKey>,
}

/// A file of the data directory: its name and what is in it.
pub type DataFile = (String, Secret<Vec<u8>>);

/// What a backup holds. All of it was read and checked.
#[derive(Debug)]
pub struct BackupContents {
    /// Its tables, with the numbers of their rows.
    pub tables: Vec<TableHead>,
    /// Its files of the data directory.
    pub files: Vec<DataFile>,
    /// Its services, without those of the archive.
    pub services: Vec<KeptService>,
}

impl BackupFile {
    /// Reads the first line of a file.
    ///
    /// # Errors
    /// `Invalid` for what is no backup, or one of a newer Vaxel; `NotFound` when it cannot be read.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let mut line = Vec::new();
        let read = File::open(path).and_then(|file| {
            BufReader::new(file)
                .take(HEAD_MAX)
                .read_until(b'\n', &mut line)
        });
        let name = path.display();
        read.map_err(|error| {
            Failure::new(Kind::NotFound, format!("{name} cannot be read: {error}"))
        })?;
        let wrong = |detail: &str| Failure::new(Kind::Invalid, format!("{name} {detail}"));
        if !line.starts_with(MAGIC) {
            return Err(wrong("is not a backup of Vaxel"));
        }
        let number = line[MAGIC.len()..]
            .split(|byte| !byte.is_ascii_digit())
            .next();
        let number =
            number.and_then(|number| std::str::from_utf8(number).ok()?.parse::<u32>().ok());
        if number.is_some_and(|number| number > FORMAT) {
            return Err(wrong(
                "was written by a newer Vaxel; restore it with that one",
            ));
        }
        let damaged = || wrong("is damaged: its first line was changed or cut short");
        let head: BackupHead = serde_json::from_slice(&line).map_err(|_| damaged())?;
        if head.vaxel_backup != FORMAT || !line.ends_with(b"\n") {
            return Err(damaged());
        }
        head.schema.require_known(path)?;
        Ok(Self {
            path: path.to_owned(),
            line,
            head,
            key: None,
        })
    }

    /// Its first line.
    pub const fn head(&self) -> &BackupHead {
        &self.head
    }

    /// Opens what is sealed; does nothing when nothing is.
    ///
    /// # Errors
    /// `Invalid` for a wrong passphrase.
    pub fn unlock(&mut self, passphrase: &str) -> Result<(), Failure> {
        if let Some(recipe) = &self.head.keys {
            self.key = Some(recipe.follow(passphrase).map_err(|error| {
                let detail = format!("{} cannot be opened: {error}", self.path.display());
                Failure::new(Kind::Invalid, detail)
            })?);
        }
        Ok(())
    }

    /// Reads and checks all of it.
    ///
    /// # Errors
    /// `Invalid` when anything of it was changed or is missing.
    pub fn verify(&self) -> Result<BackupContents, Failure> {
        self.gather().map_err(|detail| {
            let name = self.path.display();
            let detail = format!("{name} is damaged: {detail}; nothing was restored");
            Failure::new(Kind::Invalid, detail)
        })
    }

    fn gather(&self) -> Result<BackupContents, String> {
        let (mut tables, mut files) = (Vec::<TableHead>::new(), Vec::new());
        let (mut gathered, mut left) = (Gathered::default(), 0);
        for line in self.read()? {
            let line = line?;
            if let Some(file) = file_of(&line)? {
                files.push(file);
                continue;
            }
            if left == 0 {
                let head = TableHead::read(&line).map_err(|error| error.to_string())?;
                left = head.rows;
                tables.push(head);
            } else if let Some(table) = tables.last() {
                table.check(&line).map_err(|error| error.to_string())?;
                gathered.take(table, &line);
                left -= 1;
            }
        }
        if left > 0 {
            return Err("rows are missing".to_owned());
        }
        let services = gathered.services(&files);
        Ok(BackupContents {
            tables,
            files,
            services,
        })
    }

    /// The lines of its tables, for [`vaxel_store::restore`], which are checked again while they are read.
    pub fn lines(&self) -> Result<Lines, Failure> {
        let wrong = vaxel_store::Error::NoRow;
        let lines = self.read().map_err(wrong)?;
        let rows = lines.filter(|line| line.as_ref().map_or(true, |line| !is_file(line)));
        Ok(Box::new(rows.map(move |line| line.map_err(wrong))))
    }

    fn read(&self) -> Result<Reading, String> {
        let open = || -> io::Result<BufReader<File>> {
            let mut file = BufReader::with_capacity(64 << 10, File::open(&self.path)?);
            let mut line = vec![0; self.line.len()];
            file.read_exact(&mut line)?;
            if line == self.line {
                return Ok(file);
            }
            Err(io::Error::other("it was changed while it was read"))
        };
        let file = open().map_err(|error| error.to_string())?;
        let mut digest = Running::default();
        digest.add(&self.line);
        let from: Box<dyn BufRead + Send> = match (&self.head.keys, &self.key) {
            (None, _) => Box::new(file),
            (Some(_), Some(key)) => {
                Box::new(BufReader::new(SealedReader::new(file, key, &self.line)))
            }
            (Some(_), None) => return Err("it is sealed with a passphrase".to_owned()),
        };
        Ok(Reading {
            from,
            digest,
            ended: false,
        })
    }
}

/// The lines behind the first one; after the last line, which is checked, there is none.
struct Reading {
    from: Box<dyn BufRead + Send>,
    digest: Running,
    ended: bool,
}

impl Reading {
    fn line(&mut self) -> Result<Option<Vec<u8>>, String> {
        let mut line = Vec::new();
        let read = (&mut self.from).take(LINE_MAX).read_until(b'\n', &mut line);
        read.map_err(|error| error.to_string())?;
        if line.pop() != Some(b'\n') {
            return Err("it is cut short".to_owned());
        }
        if !line.starts_with(b"{\"end\"") {
            self.digest.add(&line);
            self.digest.add(b"\n");
            return Ok(Some(line));
        }
        let rest = self.from.fill_buf().map_err(|error| error.to_string())?;
        if line != last_line(&self.digest) || !rest.is_empty() {
            return Err("what it holds is not what was written".to_owned());
        }
        Ok(None)
    }
}

impl Iterator for Reading {
    type Item = Result<Vec<u8>, String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let line = self.line().transpose();
        self.ended = !matches!(line, Some(Ok(_)));
        line
    }
}

fn is_file(line: &[u8]) -> bool {
    line.starts_with(b"{\"file\"")
}

fn file_of(line: &[u8]) -> Result<Option<DataFile>, String> {
    if !is_file(line) {
        return Ok(None);
    }
    let FileLine { file, bytes } =
        serde_json::from_slice(line).map_err(|error| error.to_string())?;
    if !FILES.contains(&file.as_str()) {
        return Err(format!("it holds a file `{file}`, which no backup has"));
    }
    Ok(Some((file, Secret::new(bytes))))
}

#[cfg(test)]
mod tests;
