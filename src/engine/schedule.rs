//! Runs the nodes of a graph when their inputs are done, several side by side.
//!
//! Knows nothing of what a node does. Work is given to threads that live as long as the build, since a
//! sandbox dies with the *thread* that spawned it (PR_SET_PDEATHSIG, prctl(2)).

use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex};

struct Board<N> {
    waiting: Vec<usize>,
    ready: BTreeSet<N>,
    open: usize,
    failed: bool,
}

/// Runs `work` once for each of `pending`, each after the nodes of `pending` that `inputs` names for it.
///
/// Of the nodes that are ready the least one starts first: the first in its graph. After an error no further
/// node is started; those that run are waited for, and the first error is returned.
pub fn run<N: Copy + Ord + Send + Sync, E: Send>(
    pending: &[N],
    jobs: usize,
    inputs: impl Fn(N) -> Vec<N>,
    work: impl Fn(N) -> Result<(), E> + Sync,
) -> Result<(), E> {
    let place = |n: N| pending.iter().position(|p| *p == n);
    let mut users = vec![Vec::new(); pending.len()];
    let mut waiting = vec![0; pending.len()];
    for (i, node) in pending.iter().enumerate() {
        let mut before: Vec<usize> = inputs(*node).into_iter().filter_map(place).collect();
        before.sort_unstable();
        before.dedup();
        waiting[i] = before.len();
        for b in before {
            users[b].push(i);
        }
    }
    let ready = pending.iter().zip(&waiting).filter(|(_, w)| **w == 0).map(|(n, _)| *n).collect();
    let board = Mutex::new(Board { waiting, ready, open: pending.len(), failed: false });
    let (changed, first) = (Condvar::new(), Mutex::new(None));
    let worker = || {
        loop {
            let mut b = board.lock().expect("no worker panics while it holds the board");
            let node = loop {
                if b.failed || b.open == 0 {
                    return;
                }
                if let Some(node) = b.ready.pop_first() {
                    break node;
                }
                b = changed.wait(b).expect("no worker panics while it holds the board");
            };
            drop(b);
            let result = work(node);
            let mut b = board.lock().expect("no worker panics while it holds the board");
            b.open -= 1;
            match result {
                Ok(()) => {
                    for user in &users[place(node).expect("the node came from pending")] {
                        b.waiting[*user] -= 1;
                        if b.waiting[*user] == 0 {
                            b.ready.insert(pending[*user]);
                        }
                    }
                }
                Err(error) => {
                    b.failed = true;
                    first.lock().expect("the slot is only ever filled").get_or_insert(error);
                }
            }
            changed.notify_all();
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..jobs.clamp(1, pending.len().max(1)) {
            scope.spawn(worker);
        }
        worker();
    });
    first.into_inner().expect("the slot is only ever filled").map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::NodeId;

    #[test]
    fn each_node_runs_once_and_after_its_inputs() {
        // 0 <- 1 <- 3, 0 <- 2 <- 3
        let inputs = |n: NodeId| match n.0 {
            1 | 2 => vec![NodeId(0)],
            3 => vec![NodeId(1), NodeId(2), NodeId(2)],
            _ => vec![],
        };
        let nodes: Vec<NodeId> = (0..4).map(NodeId).collect();
        for jobs in [1, 2, 8] {
            let done = Mutex::new(Vec::new());
            run::<_, ()>(&nodes, jobs, inputs, |n| {
                let mut d = done.lock().unwrap();
                assert!(inputs(n).iter().all(|i| d.contains(i)));
                d.push(n);
                Ok(())
            })
            .unwrap();
            let mut d = done.into_inner().unwrap();
            d.sort();
            assert_eq!(d, nodes);
        }
    }

    #[test]
    fn an_error_stops_what_has_not_started() {
        let nodes: Vec<NodeId> = (0..3).map(NodeId).collect();
        let chain = |n: NodeId| if n.0 == 0 { vec![] } else { vec![NodeId(n.0 - 1)] };
        let ran = Mutex::new(0);
        let result = run(&nodes, 4, chain, |n| {
            *ran.lock().unwrap() += 1;
            if n.0 == 1 { Err("broken") } else { Ok(()) }
        });
        assert_eq!((result, *ran.lock().unwrap()), (Err("broken"), 2));
    }
}
