//! What is taken from the cache, what is not, and what is said about it.

use super::{Done, World};

/// Returns the step numbers' outcome words in order: `CACHED` or the reason.
pub(super) fn outcomes(done: &Done) -> Vec<String> {
    done.stderr
        .lines()
        .filter_map(|l| {
            let rest = l.strip_prefix('#')?.split_once(' ')?.1;
            if rest == "CACHED" { Some("CACHED".to_string()) } else { rest.strip_prefix("miss: ").map(str::to_string) }
        })
        .collect()
}

#[test]
fn nothing_changed_means_every_step_is_cached_and_the_image_is_the_same() {
    let w = World::new();
    w.file("f", "1");
    let text = "FROM base\nWORKDIR /w\nCOPY f .\nRUN echo a > a\nRUN true\n";
    w.image(text).ok();
    let id = w.ply(&["images", "-q", "--no-trunc", "t"]).ok().stdout;
    let again = w.image(text).ok();
    assert_eq!(outcomes(&again), ["CACHED"; 4], "{}", again.stderr);
    assert_eq!(w.ply(&["images", "-q", "--no-trunc", "t"]).ok().stdout, id);
}

#[test]
fn from_the_first_changed_step_onward_steps_run_and_say_why() {
    let w = World::new();
    w.file("early", "1").file("late", "1");
    let text = "FROM base\nCOPY early /e\nRUN cat /e > /e2\nCOPY late /l\nRUN cat /l /e2 > /both\n";
    w.image(text).ok();
    w.file("late", "2");
    let done = w.image(text).ok();
    let got = outcomes(&done);
    assert_eq!(&got[..2], ["CACHED"; 2], "{}", done.stderr);
    assert!(got[2].contains("late") && got[2].contains("content"), "{got:?}");
    assert_eq!(got.len(), 4, "{got:?}");
    assert_eq!(w.out(&["cat", "/both"]), "21");
}

#[test]
fn a_step_that_ran_again_with_an_equal_result_lets_the_next_hit() {
    let w = World::new();
    w.file("f", "1");
    let text = "FROM base\nCOPY f /f\nRUN test -s /f && echo fixed > /out && rm /f\nRUN cat /out > /out2\n";
    // `rm` leaves a whiteout of a lower file, so the result hides f; a multi-stage copy isolates it.
    let staged =
        "FROM base AS s\nCOPY f /f\nRUN test -s /f && echo fixed > /out\nFROM base\nCOPY --from=s /out /out\nRUN cat /out > /out2\n";
    w.image(text).ok();
    w.image(staged).ok();
    w.file("f", "2");
    let done = w.image(staged).ok();
    let got = outcomes(&done);
    assert_eq!(got.iter().filter(|o| *o == "CACHED").count(), 2, "{}", done.stderr);
    // The COPY is the other build's; what stands on it sees the file, so it runs.
    let plain = outcomes(&w.image(text).ok());
    assert_eq!(plain.iter().map(|o| o == "CACHED").collect::<Vec<_>>(), [true, false, false], "{plain:?}");
}

#[test]
fn reasons_name_the_variable_and_the_argument() {
    let w = World::new();
    let text = |v: &str| format!("FROM base\nARG A=x\nENV V={v}\nRUN echo $A$V > /o\n");
    w.image(&text("1")).ok();
    let got = outcomes(&w.image(&text("2")).ok());
    assert!(got[0].contains('V') && got[0].contains('1') && got[0].contains('2'), "{got:?}");
    let got = outcomes(&w.file("Dockerfile", &text("2")).build(&["-t", "t", "--build-arg", "A=y"]).ok());
    assert!(got[0].contains('A') && got[0].contains('x') && got[0].contains('y'), "{got:?}");
}

#[test]
fn same_size_and_time_is_not_same_content() {
    let w = World::new();
    let text = "FROM base\nCOPY f /f\n";
    let file = w.path("ctx/f");
    let stamp = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_500_000_000);
    for i in 0..20 {
        w.file("f", &format!("{i:02}"));
        std::fs::File::options().write(true).open(&file).unwrap().set_modified(stamp).unwrap();
        w.image(text).ok();
        assert_eq!(w.out(&["cat", "/f"]), format!("{i:02}"));
    }
}

#[test]
fn what_is_no_input_changes_nothing() {
    let w = World::new();
    w.file("f", "1").file("unused", "1");
    let text = "FROM base\nCOPY f /f\nRUN echo x > /x\n";
    w.image(text).ok();
    w.file("unused", "2");
    std::fs::File::options().write(true).open(w.path("ctx/f")).unwrap().set_modified(std::time::SystemTime::now()).unwrap();
    let commented = format!("# a comment\n{}", text.replace("RUN echo", "RUN   echo").replace("RUN   echo", "RUN echo"));
    let done = w.file("Dockerfile", &commented).build(&["-t", "t", "--label", "a=b", "--secret", "id=s,env=HOME"]).ok();
    assert_eq!(outcomes(&done), ["CACHED"; 2], "{}", done.stderr);
}

#[test]
fn no_cache_runs_everything() {
    let w = World::new();
    w.image("FROM base\nRUN echo x > /x\n").ok();
    let done = w.build(&["--no-cache"]).ok();
    assert_eq!(outcomes(&done).len(), 1);
    assert!(outcomes(&done)[0].contains("--no-cache"), "{}", done.stderr);
}

#[test]
fn what_a_copy_gives_does_not_depend_on_the_times_of_what_lies_below() {
    let w = World::new();
    let id = |store: &str| {
        let command = &mut w.build_command(&["--build-arg", "SOURCE_DATE_EPOCH=1"]);
        Done::from(command.env("PLY_STORE", w.path(store)).output().unwrap()).ok().stdout
    };
    w.file("f", "same").file("Dockerfile", "FROM scratch\nCOPY f /d/\n");
    id("warm");
    // Made anew: the same file, later. The first step stays a hit, with the times of then.
    std::fs::remove_file(w.path("ctx/f")).unwrap();
    w.file("f", "same").file("Dockerfile", "FROM scratch\nCOPY f /d/\nADD f /d/\n");
    assert_eq!(id("warm"), id("clean"));
}
