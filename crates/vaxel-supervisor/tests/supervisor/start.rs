//! What a process begins with, and why it does not begin.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use vaxel_core::{
    failure::{Failure, Kind},
    secret::Secret,
};
use vaxel_supervisor::{Error, Order};

use crate::home::{Home, all, line, parent, sh, until};

fn program(name: &str) -> Order {
    Order {
        program: name.to_owned(),
        args: Vec::new(),
        ..sh("")
    }
}

async fn refused(home: &Home, order: Order) -> Error {
    home.supervisor.spawn(order).await.unwrap_err()
}

fn script(home: &Home, name: &str, text: &str, mode: u32) -> String {
    let path = home.path().join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path.display().to_string()
}

#[tokio::test]
async fn a_missing_program_is_named_with_the_places_it_was_looked_for() {
    let home = Home::new();
    let error = refused(&home, program("no-such-thing")).await;
    assert_eq!(
        error.to_string(),
        "There is no program `no-such-thing` in PATH (/usr/local/bin:/usr/bin:/bin): \
         install it, or give its full path"
    );
    let failure = Failure::from(error);
    assert_eq!(failure.kind, Kind::UpstreamUnavailable);
    assert!(
        failure
            .detail
            .starts_with("There is no program `no-such-thing`")
    );
    let error = refused(&home, program("/no/such/thing")).await;
    assert!(matches!(error, Error::NotFound { .. }), "{error}");
}

#[tokio::test]
async fn what_cannot_be_run_says_what_stands_in_the_way() {
    let home = Home::new();
    let plain = script(&home, "plain", "#!/bin/sh\n", 0o600);
    let lost = script(&home, "lost", "#!/no/such/interpreter -x\n", 0o700);
    let noise = script(&home, "noise", "\u{1}\u{2} no program", 0o700);
    let folder = home.mark();
    for (name, expected) in [
        (plain, "is not executable"),
        (lost, "`/no/such/interpreter -x`"),
        (noise, "no program for this machine"),
        (folder, "is a directory"),
    ] {
        let error = refused(&home, program(&name)).await;
        assert!(matches!(error, Error::Denied { .. }), "{name}: {error:?}");
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[tokio::test]
async fn a_working_directory_that_cannot_be_entered_is_named() {
    let home = Home::new();
    let file = script(&home, "file", "", 0o600);
    for (cwd, expected) in [
        ("/no/such/folder", "it does not exist"),
        (file.as_str(), "it is not a directory"),
        ("here", "it is no absolute path"),
    ] {
        let error = refused(
            &home,
            Order {
                cwd: Some(cwd.into()),
                ..sh("true")
            },
        )
        .await;
        assert_eq!(
            error.to_string(),
            format!("The working directory `{cwd}` cannot be entered: {expected}")
        );
    }
}

#[tokio::test]
async fn what_no_program_can_be_given_is_refused() {
    let home = Home::new();
    let error = refused(
        &home,
        Order {
            args: vec!["a\0b".to_owned()],
            ..sh("")
        },
    )
    .await;
    assert!(matches!(error, Error::BadOrder { .. }), "{error:?}");
    let long = Order {
        args: vec!["x".repeat(4 << 20)],
        ..sh("")
    };
    let error = refused(&home, long).await;
    assert!(
        error.to_string().contains("longer than the system allows"),
        "{error}"
    );
    let huge = Order {
        args: vec!["x".repeat(9 << 20)],
        ..sh("")
    };
    assert!(matches!(refused(&home, huge).await, Error::BadOrder { .. }));
    assert!(matches!(
        refused(&home, program("")).await,
        Error::BadOrder { .. }
    ));
}

#[tokio::test]
async fn a_shim_that_does_not_work_is_an_error_and_not_a_wait() {
    let home = Home::with(|config| config.program = "/no/such/shim".into());
    let error = refused(&home, sh("true")).await;
    assert!(
        error
            .to_string()
            .contains("starting the shim `/no/such/shim`"),
        "{error}"
    );
    let home = Home::with(|config| config.program = "true".into());
    let error = Failure::from(refused(&home, sh("true")).await);
    assert!(
        error.detail.contains("it ended early (exit status: 0)"),
        "{}",
        error.detail
    );
}

#[tokio::test]
async fn a_child_begins_in_its_home_or_where_it_was_told() {
    let home = Home::new();
    let here = fs::canonicalize(home.path()).unwrap().display().to_string();
    assert_eq!(all(&mut home.sh("pwd").await.stdout).await.trim(), here);
    let order = Order {
        cwd: Some("/usr".into()),
        ..sh("pwd")
    };
    let mut process = home.supervisor.spawn(order).await.unwrap();
    assert_eq!(all(&mut process.stdout).await.trim(), "/usr");
}

#[tokio::test]
async fn a_program_beside_the_working_directory_is_found_from_there() {
    let home = Home::new();
    script(&home, "tool", "#!/bin/sh\necho found\n", 0o700);
    let order = Order {
        cwd: Some(home.path().into()),
        ..program("./tool")
    };
    let mut process = home.supervisor.spawn(order).await.unwrap();
    assert_eq!(all(&mut process.stdout).await.trim(), "found");
}

#[tokio::test]
async fn the_environment_is_what_was_asked_and_nothing_of_our_own() {
    let home = Home::with(|config| {
        let base = &mut config.base_env;
        base.insert("VAXEL_KEY".to_owned(), "of ours".to_owned());
        base.insert("LANG".to_owned(), "C.UTF-8".to_owned());
    });
    let mut order = sh("env");
    for (name, value) in [
        ("TOKEN", "s3cr3t"),
        ("LANG", "sv_SE"),
        ("VAXEL_URL", "of ours"),
    ] {
        order
            .env
            .insert(name.to_owned(), Secret::new(value.to_owned()));
    }
    let said = all(&mut home.supervisor.spawn(order).await.unwrap().stdout).await;
    // `sh` adds PWD and the like by itself.
    let own = |line: &&str| {
        !["PWD=", "SHLVL=", "_=", "OLDPWD="]
            .iter()
            .any(|own| line.starts_with(own))
    };
    let mut lines: Vec<&str> = said.lines().filter(own).collect();
    lines.sort_unstable();
    let (home_line, mark_line) = (
        format!("HOME={}", home.mark()),
        format!("MARK={}", home.mark()),
    );
    let path_line = "PATH=/usr/local/bin:/usr/bin:/bin";
    assert_eq!(
        lines,
        [
            home_line.as_str(),
            "LANG=sv_SE",
            &mark_line,
            path_line,
            "TOKEN=s3cr3t"
        ]
    );
}

#[tokio::test]
async fn a_shim_shows_no_secret_to_whoever_looks_at_it() {
    let home = Home::new();
    let mut order = sh("echo ready; sleep 1000 # argum3nt");
    order
        .env
        .insert("TOKEN".to_owned(), Secret::new("s3cr3t".to_owned()));
    let mut process = home.supervisor.spawn(order).await.unwrap();
    assert_eq!(line(&mut process.stdout).await, "ready");
    let child = process.handle.pid();
    let shim = parent(child);
    let shown = |pid: u32, file: &str| {
        String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/{file}")).unwrap()).into_owned()
    };
    assert!(
        shown(child, "environ").contains("s3cr3t"),
        "the child has it"
    );
    assert_eq!(shown(shim, "environ"), "");
    assert!(!shown(shim, "cmdline").contains("argum3nt"));
    process.handle.kill("killed: seen enough");
    process.handle.exited().await;
}

#[tokio::test]
async fn a_child_holds_its_three_pipes_and_nothing_else() {
    let home = Home::new();
    let process = home
        .supervisor
        .spawn(Order {
            args: vec!["1000".to_owned()],
            ..program("sleep")
        })
        .await
        .unwrap();
    let child = process.handle.pid();
    let open = || fs::read_dir(format!("/proc/{child}/fd")).unwrap().count();
    until("the program runs with its pipes alone", || open() == 3).await;
    process.handle.kill("killed: seen enough");
    process.handle.exited().await;
}

#[tokio::test]
async fn the_end_of_a_childs_output_is_seen_while_it_lives() {
    let home = Home::new();
    let mut process = home.sh("echo last; exec 1>&-; sleep 1000").await;
    assert_eq!(all(&mut process.stdout).await, "last\n");
    assert!(Path::new(&format!("/proc/{}", process.handle.pid())).exists());
    process.handle.kill("killed: seen enough");
    process.handle.exited().await;
}

#[tokio::test]
async fn a_program_is_called_by_the_name_that_was_asked_for() {
    let home = Home::new();
    let process = home
        .supervisor
        .spawn(Order {
            args: vec!["1000".to_owned()],
            ..program("sleep")
        })
        .await
        .unwrap();
    let cmdline = || fs::read(format!("/proc/{}/cmdline", process.handle.pid())).unwrap();
    until("it runs", || cmdline() == b"sleep\x001000\x00").await;
    process.handle.kill("killed: seen enough");
    process.handle.exited().await;
}
