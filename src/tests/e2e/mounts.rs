//! Mounts of RUN as the caller sees them: caches listed and removed, keys behind an agent, secrets that leave no trace.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::{Done, World, program, skipped};

fn ids(w: &World) -> Vec<String> {
    let listed = w.ply(&["cache", "mounts", "--format", "{{.ID}} {{.Namespace}} {{.Directories}}"]).ok().stdout;
    listed.lines().map(str::to_owned).collect()
}

#[test]
fn cache_mounts_are_listed_and_removed_by_id() {
    let w = World::new();
    let mount = "--mount=type=cache";
    w.image(&format!(
        "FROM base AS seed\nRUN mkdir /s; echo seeded > /s/f\nFROM base\n\
         RUN {mount},id=npm,target=/c echo x > /c/x\n\
         RUN {mount},id=npm,target=/c,from=seed,source=/s test -f /c/f -a ! -e /c/x; echo y > /c/y\n\
         RUN {mount},target=/root/.cache,mode=0700 test $(stat -c %a /root/.cache) = 700\n"
    ))
    .ok();
    w.file("Dockerfile", &format!("FROM base\nRUN {mount},id=npm,target=/c ls /c\n"))
        .build(&["--build-arg", "BUILDKIT_CACHE_MOUNT_NS=other"])
        .ok();
    assert_eq!(ids(&w), ["/root/.cache  1", "npm  1", "npm  1", "npm other 1"]);
    // Another seed is another cache, as in BuildKit.
    let text = "FROM base AS seed\nRUN mkdir /s; echo new > /s/f\nFROM base\nRUN --mount=type=cache,id=npm,target=/c,from=seed,source=/s cat /c/f; ls /c\n";
    w.file("Dockerfile", text).build(&[]).ok().says(" new");
    let json = w.ply(&["cache", "mounts", "--format", "json"]).ok().stdout;
    assert_eq!(json.lines().count(), 5, "{json}");
    assert!(json.lines().all(|l| l.contains("\"Bytes\":") && l.contains("\"InUse\":false")), "{json}");
    w.ply(&["cache", "mounts", "rm", "nppm"]).fails(1).says("no cache mount has the id `nppm`").says("did you mean `npm`?");
    assert_eq!(w.ply(&["cache", "mounts", "rm", "npm"]).ok().stdout, "npm\n");
    assert_eq!(ids(&w), ["/root/.cache  1"]);
    w.ply(&["prune", "--cache-mounts"]).ok();
    assert_eq!(ids(&w), Vec::<String>::new());
}

#[test]
fn what_a_cache_mount_holds_is_in_no_layer_and_no_key() {
    let w = World::new();
    w.image("FROM base\nRUN --mount=type=cache,target=/c echo $(echo marked)-content > /c/marked-name\nRUN test ! -e /c\n").ok();
    assert!(!w.out(&["ls", "/"]).lines().any(|name| name == "c"), "the mount point has gone");
    w.ply(&["cache", "mounts", "rm", "/c"]).ok();
    assert_eq!(files_that_hold(&w.path("store"), b"marked-content"), Vec::<String>::new());
    let again = w.build(&[]).ok();
    assert!(!again.stderr.contains("miss"), "{again:#?}");
}

#[test]
fn locked_steps_take_turns_across_builds() {
    let w = World::new();
    let text = |n: u32| {
        format!(
            "FROM base\nRUN --mount=type=cache,id=l,target=/c,sharing=locked test ! -e /c/busy && touch /c/busy && sleep 0.3 && rm /c/busy && echo {n}\n"
        )
    };
    let builds: Vec<Child> = (0..3)
        .map(|n| {
            w.file("Dockerfile", &text(n));
            let child = w.build_command(&["-f", w.path(&format!("ctx/D{n}")).to_str().unwrap()]);
            w.file(&format!("D{n}"), &text(n));
            child
        })
        .map(|mut c| c.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
        .collect();
    for build in builds {
        Done::from(build.wait_with_output().unwrap()).ok();
    }
}

#[test]
fn keys_are_offered_by_an_agent_that_cannot_be_changed() {
    let w = World::new();
    let key = w.path("key");
    let (path, locked) = (key.to_str().unwrap().to_owned(), w.path("locked"));
    let locked = locked.to_str().unwrap();
    let Some(made) = program("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-C", "a-comment", "-f", &path]) else { return };
    made.ok();
    program("ssh-keygen", &["-q", "-t", "ed25519", "-N", "secret", "-f", locked]).unwrap().ok();
    // Whatever the file's permissions, as with BuildKit.
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    w.file(
        "Dockerfile",
        "FROM keys\nRUN --mount=type=ssh,mode=0741 ssh-add -l && ! ssh-add -D && ssh-add -l && stat -c '%a %F' $SSH_AUTH_SOCK\n\
         RUN --mount=type=ssh,id=k,target=/sock,required=true test -S /sock && ssh-add -l\n",
    );
    let build = |given: &[&str]| w.build(&[&["--build-context", "keys=host:sh,ssh-add,stat,test"], given].concat());
    build(&["--ssh", &format!("default={path}"), "--ssh", &format!("k={path}")]).ok().says("a-comment (ED25519)").says("741 socket");
    build(&["--no-cache", "--ssh", &format!("default={path}")]).fails(1).says("ssh agent `k` is required").says("--ssh k");
    w.file("Dockerfile", "FROM keys\nRUN --mount=type=ssh ssh-add -l\n");
    build(&["--no-cache", "--ssh", &format!("default={locked}")]).fails(1).says("the key").says("passphrase");
    build(&["--ssh", "default=/none"]).fails(1).says("opening `/none`");
    let material = std::fs::read_to_string(&key).unwrap();
    let line = material.lines().nth(2).unwrap().as_bytes();
    assert_eq!(files_that_hold(&w.path("store"), line), Vec::<String>::new());
}

#[test]
fn the_callers_agent_is_passed_on() {
    let w = World::new();
    let (key, sock) = (w.path("key"), w.path("agent"));
    let (key, sock) = (key.to_str().unwrap(), sock.to_str().unwrap());
    let Some(made) = program("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-C", "mine", "-f", key]) else { return };
    made.ok();
    let Ok(mut agent) = Command::new("ssh-agent").args(["-D", "-a", sock]).stdout(Stdio::null()).spawn() else {
        return skipped("ssh-agent is not installed");
    };
    while !Path::new(sock).exists() {
        std::thread::yield_now();
    }
    let added = Command::new("ssh-add").args(["-q", key]).env("SSH_AUTH_SOCK", sock).status().unwrap();
    w.file("Dockerfile", "FROM keys\nUSER 1000\nRUN --mount=type=ssh,uid=1000 ssh-add -l\n");
    let done: Done = w
        .build_command(&["--ssh", "default", "--build-context", "keys=host:sh,ssh-add"])
        .env("SSH_AUTH_SOCK", sock)
        .output()
        .unwrap()
        .into();
    agent.kill().unwrap();
    agent.wait().unwrap();
    assert!(added.success());
    if super::is_root() {
        done.ok().says("mine (ED25519)");
    }
}

#[test]
fn secrets_leave_no_trace() {
    let w = World::new();
    let (value, file) = ("s3cr3t-of-a-variable", "s3cr3t-of-a-file");
    std::fs::write(w.path("secret"), file).unwrap();
    w.file(
        "Dockerfile",
        "FROM base\nRUN --mount=type=secret,id=v,env=TOKEN --mount=type=secret,id=f,mode=0440,uid=7 \
         test \"$TOKEN\" = \"$(echo s3cr3t)-of-a-variable\" && test \"$(cat /run/secrets/f)\" = \"$(echo s3cr3t)-of-a-file\" \
         && stat -c '%a %u' /run/secrets/f\nRUN test ! -e /run/secrets && test -z \"$TOKEN\"\n",
    );
    let src = format!("id=f,src={}", w.path("secret").display());
    let dest = format!("type=oci,dest={}", w.path("image.tar").display());
    let args = ["-t", "t", "--secret", "id=v,type=env,env=TOK", "--secret", &src, "-o", &dest, "-o", "type=image"];
    let done: Done = w.build_command(&args).env("TOK", value).output().unwrap().into();
    let done = done.ok();
    assert!(!done.stderr.contains(value) && !done.stderr.contains(file), "{done:#?}");
    for text in [value, file] {
        assert_eq!(files_that_hold(w.dir.path(), text.as_bytes()), if text == file { vec!["secret".to_owned()] } else { vec![] });
    }
    let history = w.ply(&["history", "--no-trunc", "t"]).ok().stdout;
    assert!(history.contains("type=secret") || history.contains("TOKEN"), "{history}");
    assert!(!history.contains(value), "{history}");
    w.file("Dockerfile", "FROM base\nRUN --mount=type=secret,id=x,required=true true\n");
    w.build(&[]).fails(1).says("secret `x` is required").says("--secret id=x");
}

/// Returns the files below a directory that hold some bytes.
fn files_that_hold(dir: &Path, bytes: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    let mut todo = vec![dir.to_path_buf()];
    while let Some(path) = todo.pop() {
        let kind = std::fs::symlink_metadata(&path).unwrap().file_type();
        if kind.is_dir() {
            todo.extend(std::fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        } else if kind.is_file() && std::fs::read(&path).is_ok_and(|content| content.windows(bytes.len()).any(|w| w == bytes)) {
            found.push(path.strip_prefix(dir).unwrap().display().to_string());
        }
    }
    found
}
