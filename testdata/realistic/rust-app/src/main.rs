//! Counts the letter a in its arguments.

fn main() {
    let text = std::env::args().skip(1).collect::<Vec<_>>().join(" ");
    let count = memchr::memchr_iter(b'a', text.as_bytes()).count();
    println!("{}", itoa::Buffer::new().format(count));
}
