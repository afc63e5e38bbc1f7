//! Which old step was in a new one's place, by what the Dockerfile says.
//!
//! Pure. Equal texts are the same place, and only what lies between two of these is paired by order or likeness: a RUN put in
//! between would else make every RUN below it look like a changed command.

/// More texts than this are paired number by number.
const MAX_ALIGNED: usize = 500;

/// Returns for each new text the old one that was in its place.
pub fn align(old: &[String], new: &[String]) -> Vec<Option<usize>> {
    // Usually little differs: what is equal at both ends needs no table.
    let head = old.iter().zip(new).take_while(|(o, n)| o == n).count();
    let tail = old[head..].iter().rev().zip(new[head..].iter().rev()).take_while(|(o, n)| o == n).count();
    let (olds, news) = (head..old.len() - tail, head..new.len() - tail);
    let mut out: Vec<Option<usize>> = (0..head).map(Some).collect();
    out.extend(align_between(&old[olds], &new[news]).into_iter().map(|pair| pair.map(|o| head + o)));
    out.extend((old.len() - tail..old.len()).map(Some));
    out
}

fn align_between(old: &[String], new: &[String]) -> Vec<Option<usize>> {
    if old.len().max(new.len()) > MAX_ALIGNED {
        return (0..new.len()).map(|n| (n < old.len()).then_some(n)).collect();
    }
    let mut out = vec![None; new.len()];
    let (mut o, mut n) = (0, 0);
    for (next_old, next_new) in common(old, new).into_iter().chain([(old.len(), new.len())]) {
        pair_gap(old, new, o..next_old, n..next_new, &mut out);
        if next_new < new.len() {
            out[next_new] = Some(next_old);
        }
        (o, n) = (next_old + 1, next_new + 1);
    }
    out
}

/// The longest common subsequence, as pairs of indices.
fn common(old: &[String], new: &[String]) -> Vec<(usize, usize)> {
    let width = new.len() + 1;
    let mut longest = vec![0_u16; (old.len() + 1) * width];
    for o in (0..old.len()).rev() {
        for n in (0..new.len()).rev() {
            longest[o * width + n] = match old[o] == new[n] {
                true => longest[(o + 1) * width + n + 1] + 1,
                false => longest[(o + 1) * width + n].max(longest[o * width + n + 1]),
            };
        }
    }
    let (mut o, mut n, mut out) = (0, 0, Vec::new());
    while o < old.len() && n < new.len() {
        if old[o] == new[n] {
            out.push((o, n));
            (o, n) = (o + 1, n + 1);
        } else if longest[(o + 1) * width + n] >= longest[o * width + n + 1] {
            o += 1;
        } else {
            n += 1;
        }
    }
    out
}

/// Pairs what lies between two equal texts: in order where there are as many old as new, by likeness else.
fn pair_gap(old: &[String], new: &[String], olds: std::ops::Range<usize>, news: std::ops::Range<usize>, out: &mut [Option<usize>]) {
    if olds.len() == news.len() {
        for (o, n) in olds.zip(news) {
            out[n] = Some(o);
        }
        return;
    }
    let mut free: Vec<usize> = olds.collect();
    for n in news {
        let best = free
            .iter()
            .enumerate()
            .map(|(at, o)| (likeness(&old[*o], &new[n]), at))
            .max_by_key(|(like, at)| (*like, std::cmp::Reverse(*at)));
        if let Some((like, at)) = best
            && like >= 50
        {
            out[n] = Some(free[at]);
            free.drain(..=at);
        }
    }
}

/// How much of two texts is a common beginning and end, in percent of the longer one.
fn likeness(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let head = a.iter().zip(b).take_while(|(x, y)| x == y).count();
    let tail = a[head..].iter().rev().zip(b[head..].iter().rev()).take_while(|(x, y)| x == y).count();
    (head + tail) * 100 / a.len().max(b.len()).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_find_their_past_whatever_was_put_in_or_taken_out() {
        let texts = |s: &str| s.split(' ').filter(|t| !t.is_empty()).map(String::from).collect::<Vec<_>>();
        for (old, new, want) in [
            ("a b c", "a b c", vec![Some(0), Some(1), Some(2)]),
            ("a b c", "a new b c", vec![Some(0), None, Some(1), Some(2)]),
            ("a b c", "a c", vec![Some(0), Some(2)]),
            ("a b c", "a changed c", vec![Some(0), Some(1), Some(2)]),
            ("", "a b", vec![None, None]),
            ("a b", "", vec![]),
            ("make-all b", "x make-all2 b", vec![None, Some(0), Some(1)]),
            ("a b", "b a", vec![None, Some(0)]),
        ] {
            let got = align(&texts(old), &texts(new));
            // Of two that changed places either may be the one that stayed.
            if old != "a b" || new != "b a" {
                assert_eq!(got, want, "{old} -> {new}");
            } else {
                assert_eq!(got.iter().flatten().count(), 1);
            }
        }
    }
}
