//! Backups of a running Vaxel, and what comes back from them.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Output};

use crate::harness::{TestVaxel, echo_server, text, wait_for};

const PLANTED: &str = "planted-7f3a9c";
const PASSPHRASE: &str = "correct horse";

/// A Vaxel with one service that has a secret.
fn vaxel_with_a_secret() -> TestVaxel {
    let vaxel = TestVaxel::start();
    let script = echo_server(vaxel.home.path()).display().to_string();
    let env = format!("TOKEN={PLANTED}");
    vaxel.ok(&[
        "service", "add", "echo", "--env", &env, "--", "python3", &script,
    ]);
    vaxel
}

/// A Vaxel that was never started.
fn empty_vaxel() -> TestVaxel {
    let vaxel = TestVaxel::start();
    vaxel.ok(&["down"]);
    fs::remove_dir_all(vaxel.data_dir()).unwrap();
    vaxel
}

fn with_passphrase(vaxel: &TestVaxel, args: &[&str], passphrase: &str) -> Output {
    let mut command = vaxel.command(args);
    command.env("VAXEL_BACKUP_PASSPHRASE", passphrase);
    command.output().unwrap()
}

fn refused(output: &Output, part: &str) {
    let said = text(output);
    assert!(!output.status.success() && said.contains(part), "{said}");
}

fn holds(file: &Path, text: &str) -> bool {
    let bytes = fs::read(file).unwrap();
    bytes
        .windows(text.len())
        .any(|window| window == text.as_bytes())
}

#[test]
fn a_backup_without_keys_serves_the_same_services_and_names_what_is_missing() {
    let vaxel = vaxel_with_a_secret();
    vaxel.ok(&["call", "echo__echo", "--arg", "text=hello"]);
    wait_for("the call to be on record", || {
        vaxel.ok(&["calls"]).contains("echo")
    });
    wait_for("the call to be on record", || {
        vaxel.ok(&["calls"]).contains("echo")
    });
    let file = vaxel.home.path().join("vaxel.backup");
    let path = file.display().to_string();
    vaxel.ok(&["backup", &path]);
    assert_eq!(
        fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );
    refused(&vaxel.cli(&["backup", &path]), "is there already");
    refused(&vaxel.cli(&["restore", &path]), "vaxel down");
    let digest = vaxel.key();
    assert!(!holds(&file, &digest[digest.len() - 12..]));

    let mut other = empty_vaxel();
    let said = text(&other.cli(&["restore", &path, "--dry-run"]));
    assert!(said.contains("nothing was restored"), "{said}");
    assert!(!other.data_dir().join("vaxel.db").exists());
    let said = text(&other.cli(&["restore", &path]));
    assert!(
        said.contains("Restored") && said.contains("echo: secret values"),
        "{said}"
    );
    assert!(said.contains("TOKEN"), "{said}");
    refused(&other.cli(&["restore", &path]), "--force");
    other.launch();
    let services = other.json(&["ls"]).to_string();
    assert!(services.contains("\"echo\""), "{services}");
    assert!(
        other.ok(&["calls"]).contains("echo"),
        "records come back, too"
    );
    assert_ne!(vaxel.key(), other.key());
}

#[test]
fn a_backup_with_keys_brings_back_secrets_and_lets_the_old_key_in() {
    let vaxel = vaxel_with_a_secret();
    let file = vaxel.home.path().join("vaxel.backup");
    let path = file.display().to_string();
    let asking = ["backup", &path, "--with-keys"];
    refused(&with_passphrase(&vaxel, &asking, "short"), "at least 8");
    assert!(!file.exists());
    let written = with_passphrase(&vaxel, &asking, PASSPHRASE);
    assert!(written.status.success(), "{}", text(&written));
    assert!(!holds(&file, "echo") && !holds(&file, PLANTED));

    let mut other = empty_vaxel();
    let wrong = with_passphrase(&other, &["restore", &path], "another one");
    refused(&wrong, "the passphrase is wrong");
    let restored = with_passphrase(&other, &["restore", &path], PASSPHRASE);
    assert!(restored.status.success(), "{}", text(&restored));
    assert!(!text(&restored).contains("secret values"));
    assert_eq!(vaxel.key(), other.key());
    other.launch();
    let answer = || {
        other.cli(&[
            "--key",
            &vaxel.key(),
            "call",
            "echo__env",
            "--arg",
            "text=TOKEN",
        ])
    };
    wait_for("the service to have its secret", || {
        String::from_utf8_lossy(&answer().stdout).trim() == PLANTED
    });
}

#[test]
fn what_is_no_whole_backup_is_refused_and_changes_nothing() {
    let vaxel = TestVaxel::start_with(&["--demo"]);
    let file = vaxel.home.path().join("vaxel.backup");
    let path = file.display().to_string();
    vaxel.ok(&["backup", &path]);
    let whole = fs::read(&file).unwrap();
    vaxel.ok(&["down"]);
    let before = fs::read(vaxel.data_dir().join("vaxel.db")).unwrap();
    let restore = || vaxel.cli(&["restore", &path, "--force"]);
    for (bytes, part) in [
        (&whole[..whole.len() / 2], "cut short"),
        (&b"hello\n"[..], "is not a backup of Vaxel"),
        (&[&whole[..], b"more"].concat(), "is damaged"),
    ] {
        fs::write(&file, bytes).unwrap();
        refused(&restore(), part);
    }
    let newer = String::from_utf8(whole.clone()).unwrap();
    let newer = newer.replacen("\"vaxel_backup\":1", "\"vaxel_backup\":9", 1);
    fs::write(&file, newer).unwrap();
    refused(&restore(), "newer Vaxel");
    refused(&vaxel.cli(&["restore", "/nowhere"]), "cannot be read");
    assert_eq!(
        fs::read(vaxel.data_dir().join("vaxel.db")).unwrap(),
        before,
        "nothing was touched"
    );
    fs::write(&file, &whole).unwrap();
    let said = text(&restore());
    assert!(said.contains("before-restore-"), "{said}");
    let names = fs::read_dir(vaxel.data_dir()).unwrap();
    let names: Vec<_> = names
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(
        names
            .iter()
            .any(|name| name.starts_with("vaxel.db.before-restore-")),
        "{names:?}"
    );
}

#[test]
fn one_service_comes_back_into_a_running_vaxel() {
    let vaxel = vaxel_with_a_secret();
    let path = vaxel.home.path().join("vaxel.backup").display().to_string();
    let written = with_passphrase(&vaxel, &["backup", &path, "--with-keys"], PASSPHRASE);
    assert!(written.status.success(), "{}", text(&written));
    let restore = ["restore", &path, "--service", "echo"];
    refused(
        &with_passphrase(&vaxel, &restore, PASSPHRASE),
        "is there already",
    );
    vaxel.ok(&["service", "rm", "echo"]);
    let unknown = ["restore", &path, "--service", "nobody"];
    refused(
        &with_passphrase(&vaxel, &unknown, PASSPHRASE),
        "no service `nobody`",
    );
    let restored = with_passphrase(&vaxel, &restore, PASSPHRASE);
    assert!(restored.status.success(), "{}", text(&restored));
    let forced = [&restore[..], &["--force"]].concat();
    let restored = with_passphrase(&vaxel, &forced, PASSPHRASE);
    assert!(restored.status.success(), "{}", text(&restored));
    wait_for("the service to have its secret", || {
        let answer = vaxel.cli(&["call", "echo__env", "--arg", "text=TOKEN"]);
        String::from_utf8_lossy(&answer.stdout).trim() == PLANTED
    });
}
