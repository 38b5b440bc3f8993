//! What a tree cannot reach, as root and as somebody else, with and without namespaces.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use tempfile::TempDir;
use vaxel_supervisor::{Order, SandboxReport};

use crate::home::{Home, all, folder, sh, shim};

/// A data directory at its usual place below `home`.
fn data_dir(home: &Path) -> PathBuf {
    let data = home.join(".local/share/vaxel");
    fs::create_dir_all(&data).unwrap();
    fs::write(data.join("admin.key"), "k3y").unwrap();
    data
}

/// Tries everything on the data directory, then what a decent server does. Each line is a finding.
const ATTEMPTS: &str = r"
    data=$HOME/.local/share/vaxel
    cat $data/admin.key 2>/dev/null && echo READ
    cat /proc/$VICTIM/root$data/admin.key 2>/dev/null && echo READ-THROUGH-PROC
    umount $data 2>/dev/null; cat $data/admin.key 2>/dev/null && echo UNCOVERED
    ln $data/admin.key $HOME/copy 2>/dev/null && echo LINKED
    echo x 2>/dev/null >> $data/admin.key && echo WRITTEN
    rm -f $data/admin.key 2>/dev/null; mv $data $HOME/.npm/ 2>/dev/null && echo MOVED
    nsenter -t $VICTIM -m cat $data/admin.key 2>/dev/null && echo ENTERED
    echo cache > $HOME/.npm/cache && mv $HOME/.npm/cache $HOME/.cache/cache && cat $HOME/.cache/cache
    mkdir -p $HOME/.config/server && echo settings > $HOME/.config/server/file && cat $HOME/.config/server/file
    file=$(mktemp) && echo temporary > $file && cat $file && rm $file
    cat $HOME/before && echo more >> $HOME/before
    sleep 0 & wait
    echo done
";
const DECENT: &str = "cache\nsettings\ntemporary\nbefore\ndone\n";

async fn attempt(home: &Home, data: &Path) -> (String, SandboxReport) {
    fs::write(home.path().join("before"), "before\n").unwrap();
    for dir in [".npm", ".cache"] {
        // A view leaves it to the tree to make these; grants make them beforehand.
        fs::create_dir_all(home.path().join(dir)).unwrap();
    }
    let mut order = Order {
        hidden: vec![data.into()],
        ..sh(ATTEMPTS)
    };
    let victim = std::process::id().to_string();
    order.env.insert("VICTIM".to_owned(), victim.into());
    let mut process = home.supervisor.spawn(order).await.unwrap();
    let said = all(&mut process.stdout).await;
    assert_eq!(fs::read_to_string(data.join("admin.key")).unwrap(), "k3y");
    (said, process.handle.sandbox().clone())
}

#[tokio::test]
async fn without_a_sandbox_the_attempts_would_succeed() {
    let home = Home::new();
    let data = data_dir(home.path());
    let order = sh(
        "cat $HOME/.local/share/vaxel/admin.key && echo; echo x >> $HOME/.local/share/vaxel/admin.key",
    );
    let mut process = home.supervisor.spawn(order).await.unwrap();
    assert_eq!(all(&mut process.stdout).await, "k3y\n");
    process.handle.exited().await;
    assert_eq!(
        fs::read_to_string(data.join("admin.key")).unwrap(),
        "k3yx\n"
    );
    assert_eq!(*process.handle.sandbox(), SandboxReport::default());
}

#[tokio::test]
async fn the_data_directory_is_out_of_reach_and_the_rest_is_not() {
    let home = Home::new();
    let data = data_dir(home.path());
    let (said, report) = attempt(&home, &data).await;
    assert!(report.data_dir_hidden, "{report:?}");
    assert_eq!(said, DECENT, "{report:?}");
}

/// A shim whose machine refuses namespaces.
fn without_namespaces(dir: &Path) -> PathBuf {
    let wrapper = dir.join("shim");
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = probe ] && exit 0\nexec {} \"$@\"\n",
        shim().display()
    );
    fs::write(&wrapper, script).unwrap();
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
    wrapper
}

#[tokio::test]
async fn where_namespaces_are_refused_grants_keep_it_out_of_reach_and_say_their_price() {
    let tools = folder();
    let home = Home::with(|config| config.program = without_namespaces(tools.path()));
    let data = data_dir(home.path());
    let (said, report) = attempt(&home, &data).await;
    assert!(report.data_dir_hidden, "{report:?}");
    assert_eq!(said, DECENT, "{report:?}");
    let price = report
        .notes
        .iter()
        .any(|note| note.contains("is out of its reach until it is started again"));
    assert!(price, "{report:?}");
}

#[tokio::test]
async fn grants_make_the_folders_of_package_runners_beforehand() {
    let tools = folder();
    let home = Home::with(|config| config.program = without_namespaces(tools.path()));
    let data = data_dir(home.path());
    let script = "for dir in .npm .cache .config .local/share/uv; do echo $dir > ~/$dir/file && cat ~/$dir/file; done";
    let order = Order {
        hidden: vec![data],
        ..sh(script)
    };
    let mut process = home.supervisor.spawn(order).await.unwrap();
    assert_eq!(
        all(&mut process.stdout).await,
        ".npm\n.cache\n.config\n.local/share/uv\n"
    );
}

#[tokio::test]
async fn with_grants_what_is_made_beside_an_ancestor_is_reached_after_the_next_start() {
    let tools = folder();
    let home = Home::with(|config| config.program = without_namespaces(tools.path()));
    let data = data_dir(home.path());
    let script = "mkdir -p ~/.new; echo new 2>/dev/null > ~/.new/file; cat ~/.new/file 2>/dev/null; echo done";
    let mut said = Vec::new();
    for _ in 0..2 {
        let order = Order {
            hidden: vec![data.clone()],
            ..sh(script)
        };
        said.push(all(&mut home.supervisor.spawn(order).await.unwrap().stdout).await);
    }
    assert_eq!(said, ["done\n", "new\ndone\n"]);
}

#[tokio::test]
async fn what_the_process_itself_needs_is_not_hidden_and_the_report_says_so() {
    let home = Home::new();
    let data = data_dir(home.path());
    let order = Order {
        hidden: vec![data.clone()],
        cwd: Some(data.clone()),
        ..sh("cat admin.key")
    };
    let mut process = home.supervisor.spawn(order).await.unwrap();
    assert_eq!(all(&mut process.stdout).await, "k3y");
    let report = process.handle.sandbox();
    assert!(!report.data_dir_hidden);
    assert!(
        report.notes[0].contains("its working directory is inside it"),
        "{report:?}"
    );
}

#[tokio::test]
async fn a_path_that_does_not_exist_is_reported_and_not_called_hidden() {
    let home = Home::new();
    let order = Order {
        hidden: vec![home.path().join("gone")],
        ..sh("true")
    };
    let process = home.supervisor.spawn(order).await.unwrap();
    assert!(!process.handle.sandbox().data_dir_hidden);
    assert!(process.handle.sandbox().notes[0].contains("cannot be found"));
}

/// Runs a hosted script as `nobody`; the lines that the host said.
fn as_nobody(home: &TempDir, shim_program: &Path, script: &str) -> Vec<String> {
    let data = data_dir(home.path());
    let owned = Command::new("chown")
        .arg("-R")
        .arg("65534:65534")
        .arg(home.path())
        .status();
    assert!(owned.unwrap().success());
    let output = Command::new(shim())
        .arg("host")
        .args([shim_program, home.path(), &data, Path::new(script)])
        .uid(65534)
        .gid(65534)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect()
}

#[test]
fn a_user_without_rights_is_kept_out_in_both_ways() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can try this as somebody else");
        return;
    }
    // Somebody else must be able to run the programs: the folders above may be closed to them.
    let public = tempfile::Builder::new()
        .prefix("vaxel-")
        .tempdir_in("/var/tmp")
        .unwrap();
    fs::set_permissions(public.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let copy = public.path().join("real-shim");
    fs::copy(shim(), &copy).unwrap();
    let refusing = public.path().join("shim");
    let text = format!(
        "#!/bin/sh\n[ \"$1\" = probe ] && exit 0\nexec {} \"$@\"\n",
        copy.display()
    );
    fs::write(&refusing, text).unwrap();
    fs::set_permissions(&refusing, fs::Permissions::from_mode(0o755)).unwrap();
    let script = "id -u; cat ~/.local/share/vaxel/admin.key 2>/dev/null; mkdir -p ~/.npm; echo works > ~/.npm/file; cat ~/.npm/file; sleep 0";
    for program in [copy, refusing] {
        let home = tempfile::Builder::new()
            .prefix("vaxel-")
            .tempdir_in("/srv")
            .unwrap();
        let said = as_nobody(&home, &program, script);
        assert!(said[0].starts_with("hidden true"), "{program:?}: {said:?}");
        assert_eq!(said[2..4], ["child 65534", "child works"], "{said:?}");
        assert!(
            said[4].starts_with("ended The process exited with code 0"),
            "{said:?}"
        );
    }
}
