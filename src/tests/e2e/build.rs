//! What a build makes.

use super::World;

#[test]
fn every_instruction_reaches_the_image() {
    let w = World::new();
    w.file("f", "content\n").file("dir/a", "a").file("dir/sub/b", "b").file(".dockerignore", "dir/sub\n");
    w.image(
        "FROM base AS first\nARG WHO=world\nENV A=1 B=\"two words\"\nWORKDIR /w\nRUN echo hello $WHO > out\nCOPY f dir/ ./\n\
         ADD --chown=7:8 f /owned\nLABEL l=v\nUSER 12\nVOLUME /v\nEXPOSE 80\nSTOPSIGNAL SIGINT\nHEALTHCHECK CMD true\nSHELL [\"/bin/sh\",\"-ec\"]\nCMD id -u; cat out; ls",
    )
    .ok();
    assert_eq!(w.ply(&["run", "--rm", "t"]).ok().stdout, "12\nhello world\na\nf\nout\n");
    let config: serde_json::Value = serde_json::from_str(&w.ply(&["inspect", "t"]).ok().stdout).unwrap();
    let c = &config[0]["Config"];
    assert_eq!(c["WorkingDir"], "/w");
    assert_eq!(c["Labels"]["l"], "v");
    assert_eq!(c["ExposedPorts"], serde_json::json!({"80/tcp": {}}));
    assert_eq!(c["Cmd"], serde_json::json!(["/bin/sh", "-ec", "id -u; cat out; ls"]));
    assert_eq!(w.out(&["stat", "-c", "%u:%g %a", "/owned"]), "7:8 644\n");
}

#[test]
fn stages_copy_from_each_other_and_unused_ones_are_not_built() {
    let w = World::new();
    w.image(
        "FROM base AS tool\nRUN echo made > /made\nFROM base AS never\nRUN false\nFROM scratch\nCOPY --from=tool /made /from-tool\nCOPY --from=0 /made /by-number\nCOPY --from=base / /",
    )
    .ok();
    assert_eq!(w.out(&["cat", "/from-tool", "/by-number"]), "made\nmade\n");
}

#[test]
fn a_target_ends_the_build_early() {
    let w = World::new();
    w.file("Dockerfile", "FROM base AS one\nRUN echo 1 > /n\nFROM one AS two\nRUN false\n");
    w.build(&["-t", "t", "--target", "ONE"]).ok();
    assert_eq!(w.out(&["cat", "/n"]), "1\n");
    w.build(&["--target", "tow"]).fails(1).says("two");
}

#[test]
fn heredocs_make_scripts_and_files() {
    let w = World::new();
    w.image("FROM base\nRUN <<EOF\necho one > /out\necho two >> /out\nEOF\nCOPY <<a <<b /d/\nA\na\nB\nb\n").ok();
    assert_eq!(w.out(&["cat", "/out", "/d/a", "/d/b"]), "one\ntwo\nA\nB\n");
}

#[test]
fn an_error_shows_the_line_a_caret_and_a_hint() {
    let w = World::new();
    let done = w.file("Dockerfile", "FROM base\nCOPPY a b\n").build(&[]).fails(1);
    for text in ["Dockerfile:2:1", "COPPY a b", "^^^^^", "COPY"] {
        assert!(done.stderr.contains(text), "`{text}` is not in {}", done.stderr);
    }
    w.file(".dockerignore", "\nsecret\n").file("secret", "x");
    w.file("Dockerfile", "FROM base\nCOPY secret /\n").build(&[]).fails(1).says("Dockerfile:2:6").says(".dockerignore line 2");
}

#[test]
fn a_failing_run_shows_its_command_its_output_and_its_exit_code() {
    let w = World::new();
    let done = w.image("FROM base\nRUN echo the-last-words; exit 7\n").fails(1);
    for text in ["echo the-last-words; exit 7", "the-last-words\n", "exit code: 7", "Dockerfile:2"] {
        assert!(done.stderr.contains(text), "`{text}` is not in {}", done.stderr);
    }
    assert_eq!(w.ply(&["images", "-q", "t"]).ok().stdout, "");
}

#[test]
fn the_sandbox_shows_nothing_of_the_host() {
    let w = World::new();
    w.file("Dockerfile", "FROM base\nRUN env > /env; cat /proc/1/environ > /environ; ls /proc/self/fd > /fd; echo $$ > /pid; cat > /stdin; cat /etc/resolv.conf > /dev/null\n");
    let mut command = w.build_command(&["-t", "t"]);
    let done: super::Done = command.env("SECRET_TOKEN", "canary-1").output().unwrap().into();
    done.ok();
    let all = w.out(&["cat", "/env", "/environ", "/stdin"]);
    assert!(!all.contains("canary-1") && !all.contains("PLY_STORE"), "{all}");
    assert_eq!(w.out(&["cat", "/pid"]), "1\n");
    // 3 is the directory that `ls` itself reads.
    assert_eq!(w.out(&["cat", "/fd"]), "0\n1\n2\n3\n");
    assert_eq!(w.out(&["ls", "/etc"]).lines().filter(|l| *l == "resolv.conf" || *l == "hosts").count(), 2, "bound while it runs");
    let tar = w.path("root.tar");
    w.build(&["-o", &format!("type=tar,dest={}", tar.display())]).ok();
    let names: Vec<String> = tar::Archive::new(std::fs::File::open(tar).unwrap())
        .entries()
        .unwrap()
        .map(|e| e.unwrap().path().unwrap().to_string_lossy().trim_end_matches('/').to_string())
        .collect();
    for stub in ["etc/resolv.conf", "etc/hosts", "dev/null", "proc/1"] {
        assert!(!names.iter().any(|n| n == stub), "{stub} left a trace");
    }
}

#[test]
fn outputs_iidfile_and_metadata_agree() {
    let w = World::new();
    let (oci, iid, meta) = (w.path("i.tar"), w.path("iid"), w.path("meta.json"));
    w.file("Dockerfile", "FROM base\nRUN echo x > /x\n");
    let out = format!("type=oci,dest={}", oci.display());
    w.build(&[
        "-t",
        "t:1",
        "-t",
        "t:2",
        "-o",
        &out,
        "-o",
        "type=image",
        "--iidfile",
        iid.to_str().unwrap(),
        "--metadata-file",
        meta.to_str().unwrap(),
    ])
    .ok();
    let id = std::fs::read_to_string(iid).unwrap();
    let meta: serde_json::Value = serde_json::from_slice(&std::fs::read(meta).unwrap()).unwrap();
    assert_eq!(meta["containerimage.config.digest"], id.trim());
    assert!(meta["containerimage.digest"].as_str().unwrap().starts_with("sha256:"));
    let tags: Vec<String> =
        w.ply(&["images"]).ok().stdout.lines().skip(1).map(|l| l.split_whitespace().take(2).collect::<Vec<_>>().join(":")).collect();
    assert!(tags.contains(&"t:1".to_string()) && tags.contains(&"t:2".to_string()), "{tags:?}");
    let local = w.path("local");
    w.build(&["-o", local.to_str().unwrap()]).ok();
    assert_eq!(std::fs::read_to_string(local.join("x")).unwrap(), "x\n");
}

#[test]
fn secrets_are_seen_by_the_step_and_nowhere_else() {
    let w = World::new();
    std::fs::write(w.path("token"), "tok-3141592").unwrap();
    w.file(
        "Dockerfile",
        "FROM base\nRUN --mount=type=secret,id=tok case $(cat /run/secrets/tok) in tok-*) ;; *) exit 1;; esac\n\
         RUN --mount=type=secret,id=tok,env=TOK case $TOK in tok-*) ;; *) exit 1;; esac\n",
    );
    let secret = format!("id=tok,src={}", w.path("token").display());
    w.build(&["-t", "t", "--secret", &secret]).ok();
    let found = std::process::Command::new("grep").args(["-rl", "3141592"]).arg(w.path("store")).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");
    assert_eq!(w.ply(&["history", "--no-trunc", "t"]).ok().stdout.matches("3141592").count(), 0);
}

#[test]
fn a_built_image_stays_whole_as_the_base_of_others() {
    let w = World::new();
    w.image("FROM base\nRUN echo below > /below\n").ok();
    w.file("f", "f").file("Dockerfile", "FROM t\nCOPY f /f\n").build(&["-t", "u"]).ok();
    for image in ["t", "u"] {
        assert_eq!(w.ply(&["run", "--rm", image, "cat", "/below"]).ok().stdout, "below\n", "{image}");
    }
    w.file("Dockerfile", "FROM t\nRUN cat /below\n").build(&["--no-cache"]).ok();
    w.ply(&["fsck"]).ok();
}
