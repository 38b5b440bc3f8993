//! API keys, the root key and the keys of tokens, from the command line and over the wire.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use crate::harness::{Door, TestVaxel, echo_server, marked, text, wait_for};

/// Two root keys, as they are given.
const ONE: &str = "3f1c9f0a6b2d4e8897a1b2c3d4e5f60718293a4b5c6d7e8f9012a3b4c5d6e7f8";
const TWO: &str = "a7d0c3b6995f2e18c4e5f60718293a4b5c6d7e8f9012a3b4c5d6e7f83f1c9f0a";
const PLANTED: &str = "planted-51c9e2";

impl TestVaxel {
    /// Whether a key is let in.
    fn lets_in(&self, key: &str) -> bool {
        let door = Door {
            key: key.to_owned(),
            ..Door::of(self)
        };
        let (status, _) = door.ask("GET", "/api/v1/auth/whoami", None).unwrap();
        status == 200
    }

    fn key_named(&self, name: &str) -> Value {
        let keys = self.json(&["key", "ls"]);
        let mut keys = keys.as_array().unwrap().iter();
        keys.find(|key| key["name"] == name).unwrap().clone()
    }

    /// Adds a service whose program has a secret.
    fn add_echo(&self) {
        let script = echo_server(self.home()).display().to_string();
        let env = format!("TOKEN={PLANTED}");
        self.ok(&[
            "service", "add", "echo", "--env", &env, "--", "python3", &script,
        ]);
    }

    fn secret_of_echo(&self) -> String {
        self.ok(&["call", "echo__env", "--arg", "text=TOKEN"])
            .trim()
            .to_owned()
    }
}

/// Every file below a folder.
fn files(below: &Path) -> Vec<PathBuf> {
    let (mut found, mut left) = (Vec::new(), vec![below.to_owned()]);
    while let Some(path) = left.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(&path).unwrap();
            left.extend(entries.map(|entry| entry.unwrap().path()));
        } else {
            found.push(path);
        }
    }
    found
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

fn bytes_of(key: &str) -> Vec<u8> {
    let digits = key.as_bytes().chunks(2);
    let byte = |pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.map(byte).collect()
}

#[test]
fn a_key_is_rotated_and_the_list_says_what_became_of_both_secrets() {
    let vaxel = TestVaxel::start();
    let old = vaxel.json(&["key", "create", "ci", "--expires", "90d"]);
    let old = old["key"].as_str().unwrap();
    let rotated = vaxel.json(&["key", "rotate", "ci", "--overlap", "2h"]);
    let new = rotated["key"].as_str().unwrap();
    assert!(vaxel.lets_in(old) && vaxel.lets_in(new));
    wait_for("the uses to be noted", || {
        let key = vaxel.key_named("ci");
        key["last_used_from"] == "127.0.0.1" && key["earlier"]["last_used_at"].is_string()
    });
    let table = vaxel.ok(&["key", "ls", "--user", "admin"]);
    assert!(
        table.contains("127.0.0.1") && table.contains("the one before until"),
        "{table}"
    );
    let refused = vaxel.cli(&["key", "rotate", "ci"]);
    assert!(text(&refused).contains("0s"), "{}", text(&refused));
    let third = vaxel.json(&["key", "rotate", "ci", "--overlap", "0s"]);
    assert!(!vaxel.lets_in(old) && !vaxel.lets_in(new));
    assert!(vaxel.lets_in(third["key"].as_str().unwrap()));
    // What this very command line uses.
    let admin = vaxel.key();
    vaxel.ok(&["key", "rotate", "admin", "--overlap", "0s"]);
    assert_ne!(vaxel.key(), admin);
    assert!(!vaxel.lets_in(&admin) && vaxel.lets_in(&vaxel.key()));

    let kept = vaxel.json(&["key", "create", "agent", "--rotate-every", "30d"]);
    let file = vaxel.data_dir().join(kept["file"].as_str().unwrap());
    assert_eq!(fs::read_to_string(&file).unwrap().trim(), kept["key"]);
    assert_eq!(
        fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert!(kept["rotation_due_at"].is_string());
    let odd = vaxel.cli(&["key", "create", "../x", "--rotate-every", "30d"]);
    assert!(!odd.status.success());
    vaxel.ok(&["key", "revoke", "agent"]);
    assert!(!file.exists());
}

#[test]
fn a_root_key_of_the_environment_is_nowhere_else_and_follows_another_one() {
    let mut vaxel = TestVaxel::start();
    vaxel.add_echo();
    vaxel.down();
    // From the file into the environment.
    vaxel.set_env(&[("VAXEL_ROOT_KEY", ONE)]);
    vaxel.launch();
    let file = vaxel.data_dir().join("root.key");
    wait_for("the file to be needed no longer", || !file.exists());
    assert_eq!(vaxel.secret_of_echo(), PLANTED);
    assert_eq!(vaxel.json(&["key", "root"])["source"], "environment");
    let below = [
        marked("shim"),
        marked(&echo_server(vaxel.home()).display().to_string()),
    ]
    .concat();
    assert!(below.len() >= 2);
    for process in below {
        for name in ["cmdline", "environ"] {
            let seen = fs::read(format!("/proc/{process}/{name}")).unwrap_or_default();
            assert!(!holds(&seen, ONE.as_bytes()), "{name} of process {process}");
        }
    }
    let missing = vaxel.cli(&["key", "rotate-root"]);
    assert!(!missing.status.success());
    let new = vaxel.home().join("new.key");
    fs::write(&new, TWO).unwrap();
    let said = text(&vaxel.cli(&[
        "key",
        "rotate-root",
        "--new-key-file",
        &new.display().to_string(),
    ]));
    assert!(
        said.contains("From the next start on the environment"),
        "{said}"
    );
    fs::remove_file(&new).unwrap();

    // The one before leads to the new one until that is given.
    for key in [ONE, TWO, TWO] {
        vaxel.down();
        vaxel.set_env(&[("VAXEL_ROOT_KEY", key)]);
        vaxel.launch();
        wait_for("the service to have its secret", || {
            let args = ["call", "echo__env", "--arg", "text=TOKEN"];
            String::from_utf8_lossy(&vaxel.cli(&args).stdout).trim() == PLANTED
        });
        assert_eq!(vaxel.json(&["key", "root"])["is_stale"], key == ONE);
        wait_for("nothing to be sealed with another key", || {
            vaxel.json(&["key", "root"]).get("replacing").is_none()
        });
    }
    vaxel.down();
    vaxel.set_env(&[("VAXEL_ROOT_KEY", ONE)]);
    let said = vaxel.refuses_to_start();
    assert!(said.contains("is not the one that sealed"), "{said}");
    vaxel.set_env(&[]);
    let said = vaxel.refuses_to_start();
    assert!(
        said.contains("comes from environment") && !file.exists(),
        "{said}"
    );
    vaxel.set_env(&[("VAXEL_ROOT_KEY", "short")]);
    let said = vaxel.refuses_to_start();
    assert!(
        said.contains("64 hexadecimal digits") && !said.contains("short"),
        "{said}"
    );
    for path in files(vaxel.home()) {
        let bytes = fs::read(&path).unwrap();
        for key in [ONE, TWO] {
            let planted = [key.as_bytes(), &bytes_of(key)];
            assert!(
                !planted.iter().any(|one| holds(&bytes, one)),
                "{}",
                path.display()
            );
        }
    }
}

#[test]
fn a_root_key_comes_from_a_command_that_gives_one() {
    let mut vaxel = TestVaxel::start();
    vaxel.add_echo();
    vaxel.down();
    let config = vaxel.data_dir().join("config.toml");
    let command = |command: &str| {
        let text = format!("[secrets]\nroot_key_command = [\"sh\", \"-c\", {command:?}]\n");
        fs::write(&config, text).unwrap();
    };
    for (bad, part) in [
        ("exit 3", "failed"),
        ("echo hello", "64 hexadecimal digits"),
        ("exec yes", "failed"),
        (&format!("test -n \"$VAXEL_KEY\" && echo {ONE}"), "failed"),
    ] {
        command(bad);
        let said = vaxel.refuses_to_start();
        assert!(said.contains(part) && !said.contains(ONE), "{bad}: {said}");
    }
    command(&format!("echo {ONE}"));
    vaxel.launch();
    wait_for("the service to have its secret", || {
        let args = ["call", "echo__env", "--arg", "text=TOKEN"];
        String::from_utf8_lossy(&vaxel.cli(&args).stdout).trim() == PLANTED
    });
    assert_eq!(vaxel.json(&["key", "root"])["source"], "command");
    vaxel.down();
    vaxel.set_env(&[("VAXEL_ROOT_KEY", TWO)]);
    let said = vaxel.refuses_to_start();
    assert!(said.contains("given twice"), "{said}");
}

#[test]
fn a_root_key_is_replaced_however_often_vaxel_is_killed_meanwhile() {
    let mut vaxel = TestVaxel::start();
    // It was given once, and has been in a file since.
    let file = vaxel.data_dir().join("root.key");
    vaxel.down();
    vaxel.set_env(&[("VAXEL_ROOT_KEY", ONE)]);
    vaxel.launch();
    wait_for("the file to be needed no longer", || !file.exists());
    vaxel.down();
    fs::write(&file, bytes_of(ONE)).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    vaxel.set_env(&[]);
    vaxel.launch();
    let env: serde_json::Map<String, Value> = (0..60)
        .map(|number| {
            (
                format!("SECRET_{number}"),
                format!("{PLANTED}-{number}").into(),
            )
        })
        .collect();
    for number in 0..20 {
        let service = json!({ "name": format!("s{number}"), "enabled": false,
            "spec": { "source": { "process": { "command": "true", "env": env } } } });
        let made = Door::of(&vaxel)
            .ask("POST", "/api/v1/services", Some(&service))
            .unwrap();
        assert_eq!(made.0, 201, "{}", made.1);
    }
    vaxel.add_echo();
    let backup = vaxel.home().join("before.backup");
    let with_keys = |vaxel: &TestVaxel, args: &[&str]| {
        let mut command = vaxel.command(args);
        let output = command
            .env("VAXEL_BACKUP_PASSPHRASE", "correct horse")
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", text(&output));
        text(&output)
    };
    with_keys(
        &vaxel,
        &["backup", &backup.display().to_string(), "--with-keys"],
    );
    let first = fs::read(vaxel.data_dir().join("root.key")).unwrap();
    for _ in 0..4 {
        let begun = Door::of(&vaxel).ask("POST", "/api/v1/root-key/rotate", Some(&json!({})));
        // What an earlier round began may still be on its way.
        assert!(matches!(begun.unwrap().0, 200 | 409));
        vaxel.kill();
        vaxel.launch();
    }
    wait_for("everything to be sealed anew", || {
        vaxel.json(&["key", "root"]).get("replacing").is_none()
    });
    assert_ne!(fs::read(vaxel.data_dir().join("root.key")).unwrap(), first);
    assert!(!vaxel.data_dir().join("root.key.old").exists());
    wait_for("the service to have its secret", || {
        let args = ["call", "echo__env", "--arg", "text=TOKEN"];
        String::from_utf8_lossy(&vaxel.cli(&args).stdout).trim() == PLANTED
    });
    // Of 1,201 values none is lost, and a backup of before opens as it did.
    let after = vaxel.home().join("after.backup").display().to_string();
    with_keys(&vaxel, &["backup", &after, "--with-keys"]);
    vaxel.down();
    fs::remove_dir_all(vaxel.data_dir()).unwrap();
    for file in [&backup.display().to_string(), &after] {
        let said = with_keys(&vaxel, &["restore", file, "--dry-run"]);
        assert!(!said.contains("secret values"), "{said}");
    }
    with_keys(&vaxel, &["restore", &backup.display().to_string()]);
    assert_eq!(fs::read(vaxel.data_dir().join("root.key")).unwrap(), first);
    vaxel.launch();
    wait_for("the service to have its secret", || {
        let args = ["call", "echo__env", "--arg", "text=TOKEN"];
        String::from_utf8_lossy(&vaxel.cli(&args).stdout).trim() == PLANTED
    });
}

#[test]
fn the_keys_of_tokens_are_listed_and_follow_each_other_on_demand() {
    let vaxel = TestVaxel::start();
    let stages = |keys: &Value| -> Vec<(String, String)> {
        let text = |key: &Value, name: &str| key[name].as_str().unwrap().to_owned();
        let keys = keys.as_array().unwrap().iter();
        keys.map(|key| (text(key, "stage"), text(key, "kid")))
            .collect()
    };
    let before = stages(&vaxel.json(&["key", "signing"]));
    assert_eq!(before[0].0, "next");
    vaxel.ok(&["key", "rotate-signing"]);
    let after = stages(&vaxel.json(&["key", "signing"]));
    assert!(
        after.contains(&("current".to_owned(), before[0].1.clone())),
        "{after:?}"
    );
    assert!(
        after.contains(&("previous".to_owned(), before[1].1.clone())),
        "{after:?}"
    );
}
