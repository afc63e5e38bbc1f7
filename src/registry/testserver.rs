//! A server that misbehaves on demand, for tests of registries and downloads: HTTP on loopback, a closure makes the answers.
//!
//! One request a connection; what came in is kept, so that a test can see which headers went where. By TLS it speaks with the
//! certificate of `testdata/tls`. Who expects TLS where there is none is hung up on.

#![allow(dead_code)] // also a module of the end-to-end tests, which use a part of it

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use rustls::pki_types::pem::PemObject as _;

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub method: String,
    /// With the query.
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

/// An answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// End after this many bytes of the body; `Content-Length` promises all.
    pub cut_after: Option<usize>,
    /// End after this many bytes of the head.
    pub cut_head_after: Option<usize>,
    /// Where it is cut: how.
    pub cut: Cut,
    /// What `Content-Length` says, instead of the truth.
    pub length: Option<usize>,
    /// Repeat the body without end, no `Content-Length`.
    pub endless: bool,
    /// Say nothing at all, until the client goes.
    pub silent: bool,
}

/// How a connection ends before its time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Cut {
    /// It is closed.
    #[default]
    Close,
    /// It is reset.
    Reset,
    /// Nothing comes any more.
    Stall,
}

impl Reply {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, body: body.into(), ..Self::default() }
    }
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
}

/// Runs until it is dropped.
pub(crate) struct TestServer {
    pub host: String,
    requests: Arc<Mutex<Vec<Request>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl TestServer {
    /// Starts one; `answer` gets the request and how many came before it.
    pub fn start(answer: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_with(None, answer)
    }

    /// Starts one that speaks TLS.
    pub fn start_tls(answer: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_with(Some(Arc::new(tls(None))), answer)
    }

    /// Starts one that speaks TLS with those who show a certificate that `testdata/tls/ca.crt` vouches for.
    pub fn start_mutual_tls(answer: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static) -> Self {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(rustls::pki_types::CertificateDer::from_pem_slice(CA.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let clients = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        Self::start_with(Some(Arc::new(tls(Some(clients)))), answer)
    }

    fn start_with(tls: Option<Arc<rustls::ServerConfig>>, answer: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (log, stopped) = (Arc::clone(&requests), Arc::clone(&stop));
        let answer = Arc::new(answer);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (log, answer, tls) = (Arc::clone(&log), Arc::clone(&answer), tls.clone());
                let Ok(stream) = stream else { return };
                std::thread::spawn(move || serve(stream, tls, &log, &*answer));
            }
        });
        Self { host, requests, stop, thread: Some(thread) }
    }

    /// Returns what came so far.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the accept.
        let _ = TcpStream::connect(&self.host);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

const CA: &str = include_str!("../../testdata/tls/ca.crt");

fn tls(clients: Option<Arc<dyn rustls::server::danger::ClientCertVerifier>>) -> rustls::ServerConfig {
    let certificate = rustls::pki_types::CertificateDer::from_pem_slice(include_bytes!("../../testdata/tls/server.crt")).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::from_pem_slice(include_bytes!("../../testdata/tls/server.key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let builder = match clients {
        Some(clients) => builder.with_client_cert_verifier(clients),
        None => builder.with_no_client_auth(),
    };
    builder.with_single_cert(vec![certificate], key).unwrap()
}

fn serve(socket: TcpStream, tls: Option<Arc<rustls::ServerConfig>>, log: &Mutex<Vec<Request>>, answer: &dyn Fn(&Request, usize) -> Reply) {
    let mut first = [0];
    // TLS begins with 22, a method with a letter.
    if !socket.peek(&mut first).is_ok_and(|n| n == 1 && (first[0] == 22) == tls.is_some()) {
        return;
    }
    let Ok(writer) = socket.try_clone() else { return };
    match tls {
        None => talk(BufReader::new(&socket), |_| writer, &socket, log, answer),
        Some(config) => {
            let Ok(connection) = rustls::ServerConnection::new(config) else { return };
            let stream = rustls::StreamOwned::new(connection, writer);
            talk(BufReader::new(stream), BufReader::into_inner, &socket, log, answer);
        }
    }
}

/// Takes one request and gives one answer.
fn talk<R: BufRead, W: Write>(
    mut reader: R,
    writer: impl FnOnce(R) -> W,
    socket: &TcpStream,
    log: &Mutex<Vec<Request>>,
    answer: &dyn Fn(&Request, usize) -> Reply,
) {
    let Some(request) = read_request(&mut reader) else { return };
    let number = {
        let mut log = log.lock().unwrap();
        log.push(request.clone());
        log.len() - 1
    };
    let reply = answer(&request, number);
    // The client may have gone; that is its right.
    let _ = write_reply(&mut writer(reader), socket, &reply);
}

fn read_request(reader: &mut impl BufRead) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let method = words.next()?.to_string();
    let path = words.next()?.to_string();
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim().split_once(':') else { break };
        headers.push((name.to_lowercase(), value.trim().to_string()));
    }
    let length = headers.iter().find(|(n, _)| n == "content-length").and_then(|(_, v)| v.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request { method, path, headers, body })
}

/// Waits until the client goes.
fn wait(mut socket: &TcpStream) -> std::io::Result<()> {
    socket.read(&mut [0; 4096]).map(drop)
}

fn write_reply(out: &mut impl Write, socket: &TcpStream, reply: &Reply) -> std::io::Result<()> {
    if reply.silent {
        return wait(socket);
    }
    let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", reply.status);
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !reply.endless {
        head.push_str(&format!("Content-Length: {}\r\n", reply.length.unwrap_or(reply.body.len())));
    }
    head.push_str("\r\n");
    let of_head = reply.cut_head_after.unwrap_or(head.len()).min(head.len());
    out.write_all(&head.as_bytes()[..of_head])?;
    let of_body = if of_head < head.len() { 0 } else { reply.cut_after.unwrap_or(reply.body.len()).min(reply.body.len()) };
    out.write_all(&reply.body[..of_body])?;
    if reply.endless {
        // Until the client has had enough.
        loop {
            out.write_all(&reply.body)?;
        }
    }
    out.flush()?;
    match reply.cut {
        Cut::Stall => wait(socket),
        // What is not read when a socket closes, or a linger time of nothing, makes the end a reset.
        Cut::Reset => {
            std::thread::sleep(std::time::Duration::from_millis(20));
            rustix::net::sockopt::set_socket_linger(socket, Some(std::time::Duration::ZERO)).map_err(std::io::Error::from)
        }
        Cut::Close => Ok(()),
    }
}
