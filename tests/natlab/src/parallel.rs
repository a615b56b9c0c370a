//! Runs a list of jobs, a few at a time.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

/// Runs `work` on every item, at most `jobs` at a time, and returns the results in the order of the list. `work` also
/// gets the index of the item.
pub(crate) fn run_parallel<T: Sync, R: Send>(
    jobs: usize,
    list: &[T],
    work: impl Fn(usize, &T) -> R + Sync,
) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, list.len().max(1)) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = list.get(index) else { return };
                    let result = work(index, item);
                    results.lock().unwrap_or_else(PoisonError::into_inner).push((index, result));
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::run_parallel;

    #[test]
    fn results_keep_the_order_of_the_list() {
        let list: Vec<usize> = (0..100).collect();
        let results = run_parallel(8, &list, |index, item| (index, item * 2));
        assert_eq!(results, list.iter().map(|item| (*item, item * 2)).collect::<Vec<_>>());
        assert!(run_parallel(0, &[] as &[u8], |_, item| *item).is_empty());
    }
}
