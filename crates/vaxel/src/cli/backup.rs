//! `vaxel backup` and `vaxel restore`: everything that is stored, in one file and back.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail};
use serde_json::json;
use vaxel_client::{Client, Local};
use vaxel_control::{BackupContents, BackupFile, KeptService};
use vaxel_core::secret::Secret;
use vaxel_store::Restoring;

use super::{Context, passphrase, store::configured};
use crate::output;

/// Longest wait until a backup is written and begins to come.
const WRITTEN: Duration = Duration::from_hours(1);

/// What `vaxel backup` is told.
#[derive(Debug, clap::Args)]
pub(super) struct BackupArgs {
    /// Where to write it; there must be no such file
    file: PathBuf,
    /// With API keys, sealed values and the root key; the file is sealed with a passphrase, which is asked
    /// for, or taken from `VAXEL_BACKUP_PASSPHRASE`
    #[arg(long)]
    with_keys: bool,
    /// Take the passphrase from the first line of a file
    #[arg(long, value_name = "FILE", requires = "with_keys")]
    passphrase_file: Option<PathBuf>,
}

/// What `vaxel restore` is told.
#[derive(Debug, clap::Args)]
pub(super) struct RestoreArgs {
    /// The backup
    file: PathBuf,
    /// Only this service, into the running Vaxel; may be given more than once
    #[arg(long, value_name = "NAME")]
    service: Vec<String>,
    /// Even when there is something already: files are moved aside, services updated, a PostgreSQL
    /// database emptied
    #[arg(long)]
    force: bool,
    /// Check the backup and say what is in it, nothing more
    #[arg(long)]
    dry_run: bool,
    /// Take the passphrase from the first line of a file
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Configuration file that says where to store it [default: as of `vaxel up`]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Writes a backup of the running Vaxel.
pub(super) async fn backup(args: BackupArgs, context: &Context) -> anyhow::Result<()> {
    let name = args.file.display();
    if args.file.exists() {
        bail!("{name} is there already; nothing was written: name another file");
    }
    let client = context.client()?.with_timeout(WRITTEN);
    let passphrase = if args.with_keys {
        Some(passphrase::new(args.passphrase_file.as_deref())?)
    } else {
        None
    };
    let draft = Draft::beside(&args.file)?;
    let bytes = download(&client, passphrase.as_ref(), &draft).await?;
    let contents = {
        // What cannot be read back is no backup.
        let mut file = BackupFile::open(&draft.0)?;
        if let Some(passphrase) = &passphrase {
            file.unlock(passphrase.expose())?;
        }
        file.verify()?
    };
    fs::rename(&draft.0, &args.file).with_context(|| format!("{name} cannot be written"))?;
    sync_folder(&args.file)?;
    let rows: u64 = contents.tables.iter().map(|table| table.rows).sum();
    let (tables, services) = (contents.tables.len(), contents.services.len());
    output::note(format!(
        "Wrote {name}: {services} services, {rows} rows of {tables} tables, {bytes} bytes"
    ));
    if passphrase.is_none() {
        output::note("Without API keys and sealed values; --with-keys keeps these, too");
    }
    Ok(())
}

/// A file that goes away unless it is renamed.
struct Draft(PathBuf);

impl Draft {
    fn beside(file: &Path) -> anyhow::Result<Self> {
        let mut name = file.as_os_str().to_owned();
        name.push(format!(".{}.new", std::process::id()));
        let draft = Self(name.into());
        let made = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&draft.0);
        made.with_context(|| format!("{} cannot be written", file.display()))?;
        Ok(draft)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // It has been renamed, or is of no use.
        let _ = fs::remove_file(&self.0);
    }
}

async fn download(
    client: &Client,
    passphrase: Option<&Secret<String>>,
    draft: &Draft,
) -> anyhow::Result<u64> {
    let unwritten = || "the backup cannot be written";
    let mut file = File::options().write(true).open(&draft.0)?;
    let asked = json!({ "passphrase": passphrase.map(Secret::expose) });
    let mut coming = client.download("/api/v1/backup", &asked).await?;
    let mut bytes = 0;
    while let Some(piece) = coming.next().await? {
        bytes += piece.len() as u64;
        file.write_all(&piece).with_context(unwritten)?;
    }
    file.sync_all().with_context(unwritten)?;
    Ok(bytes)
}

fn sync_folder(file: &Path) -> anyhow::Result<()> {
    let folder = file
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    Ok(File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?)
}

/// Reads a backup back.
pub(super) async fn restore(args: RestoreArgs, context: &Context) -> anyhow::Result<()> {
    let mut file = BackupFile::open(&args.file)?;
    if file.head().keys.is_some() {
        let passphrase = passphrase::known(args.passphrase_file.as_deref())?;
        file.unlock(passphrase.expose())?;
    }
    let contents = file.verify()?;
    say(&file, &contents);
    if args.dry_run {
        output::note("Checked, and nothing was restored (--dry-run)");
        return Ok(());
    }
    if !args.service.is_empty() {
        return services(&args, contents, context).await;
    }
    whole(args, (file, contents), context).await
}

/// What is in a backup.
fn say(file: &BackupFile, contents: &BackupContents) {
    let head = file.head();
    output::note(format!(
        "A backup of {} by Vaxel {} ({}), {} keys",
        head.created_at,
        head.vaxel,
        head.engine,
        if head.keys.is_some() {
            "with"
        } else {
            "without"
        }
    ));
    for table in contents.tables.iter().filter(|table| table.rows > 0) {
        output::note(format!("  {:<24} {:>10}", table.table, table.rows));
    }
}

async fn whole(
    args: RestoreArgs,
    (file, contents): (BackupFile, BackupContents),
    context: &Context,
) -> anyhow::Result<()> {
    if context.global.url.is_some() {
        bail!("only services are restored into a running Vaxel: name them with --service");
    }
    if let Some(local) = Local::find(&context.data_dir) {
        bail!(
            "Vaxel runs (process {}); stop it with `vaxel down`, then restore, or name services with --service",
            local.pid
        );
    }
    let to = configured(args.config, context)?;
    let now = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ");
    let aside = args.force.then(|| format!("before-restore-{now}"));
    let BackupContents {
        tables,
        files,
        services,
    } = contents;
    let has_keys = !files.is_empty();
    let what = Restoring {
        schema: file.head().schema,
        tables,
        files,
        aside: aside.clone(),
    };
    let restored = vaxel_store::restore(&to, what, file.lines()?).await?;
    vaxel_control::expect_another_audit(&to.dir).with_context(|| {
        "the restored audit is another one than the one before, and that could not be noted: the next start will \
         say that the database was put back"
    })?;
    let rows: u64 = restored.iter().map(|table| table.rows).sum();
    output::note(format!("Restored {rows} rows, and checked them"));
    if to.url.is_some() && aside.is_some() {
        output::note("What was in the database before is gone (--force)");
    }
    if let Some(aside) = aside {
        output::note(format!(
            "What was there before ends with .{aside}, in {}",
            to.dir.display()
        ));
    }
    if !has_keys {
        output::note("The backup has no API keys: `vaxel up` makes an admin key");
    }
    services.iter().for_each(tell_missing);
    output::note("Next: vaxel up");
    Ok(())
}

fn tell_missing(service: &KeptService) {
    if !service.missing.is_empty() {
        let (name, missing) = (&service.draft.name, service.missing.join(", "));
        output::note(format!(
            "{name}: secret values are not in the backup; set them again (`vaxel service edit {name}`): {missing}"
        ));
    }
}

async fn services(
    args: &RestoreArgs,
    contents: BackupContents,
    context: &Context,
) -> anyhow::Result<()> {
    let client = context.client()?;
    let find = |name: &String| {
        let found = contents
            .services
            .iter()
            .find(|kept| kept.draft.name.as_str() == name);
        found.with_context(|| format!("there is no service `{name}` in {}", args.file.display()))
    };
    let kept: Vec<_> = args.service.iter().map(find).collect::<Result<_, _>>()?;
    let mut there = Vec::new();
    for service in &kept {
        there.push(is_there(&client, service.draft.name.as_str()).await?);
    }
    if !args.force
        && let Some(at) = there.iter().position(|there| *there)
    {
        bail!(
            "{} is there already; nothing was restored: say --force to update what is there",
            kept[at].draft.name
        );
    }
    for (service, there) in kept.iter().zip(there) {
        let name = &service.draft.name;
        let _: serde_json::Value = if there {
            let path = format!("/api/v1/services/{name}?message=restored");
            client.put(&path, &service.draft, None).await?
        } else {
            client
                .post("/api/v1/services?message=restored", &service.draft)
                .await?
        };
        output::note(format!("Restored {name}"));
        tell_missing(service);
    }
    Ok(())
}

async fn is_there(client: &Client, name: &str) -> anyhow::Result<bool> {
    let path = format!("/api/v1/services/{name}");
    match client.get::<serde_json::Value>(&path).await {
        Ok(_) => Ok(true),
        Err(vaxel_client::Error::Problem(problem)) if problem.status == 404 => Ok(false),
        Err(error) => Err(error.into()),
    }
}
