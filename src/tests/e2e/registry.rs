//! Pulling from a real registry: Debian's docker-registry on loopback.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{World, program, skipped};

struct Registry {
    process: Child,
    port: u16,
}

impl Registry {
    /// Starts one with its data in `w`; none where it is not installed.
    fn start(w: &World) -> Option<Self> {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = w.path("registry.yml");
        let text = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:{port}\n",
            w.path("registry").display()
        );
        std::fs::write(&config, text).unwrap();
        let started = Command::new("docker-registry").arg("serve").arg(&config).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let Ok(process) = started else {
            skipped("docker-registry is not installed");
            return None;
        };
        let registry = Self { process, port };
        let deadline = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "the registry does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(registry)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_base_is_pulled_once_and_then_needs_no_network() {
    let w = World::new();
    let Some(registry) = Registry::start(&w) else { return };
    let oci = w.path("base.tar");
    w.file("Dockerfile", "FROM base\nRUN echo from-the-registry > /r\nENV FROM_BASE=1\n");
    w.build(&["-t", "b:1", "-o", &format!("type=oci,dest={}", oci.display())]).ok();
    let name = format!("127.0.0.1:{}/team/base:1", registry.port);
    let pushed = program(
        "skopeo",
        &["copy", "--insecure-policy", "--dest-tls-verify=false", &format!("oci-archive:{}", oci.display()), &format!("docker://{name}")],
    );
    let Some(pushed) = pushed else { return };
    pushed.ok();
    let puller = World::new();
    puller.image(&format!("FROM {name}\nRUN echo $FROM_BASE > /own\n")).ok();
    assert_eq!(puller.out(&["cat", "/r", "/own"]), "from-the-registry\n1\n");
    drop(registry);
    puller.image(&format!("FROM {name}\nRUN echo $FROM_BASE > /own\nRUN echo more > /more\n")).ok();
    assert_eq!(puller.out(&["cat", "/more"]), "more\n");
    puller.image(&format!("FROM {name}-missing\n")).fails(1).says("team/base").says("Dockerfile:1");
}
