//! Which image was built upon which.

use std::collections::{BTreeMap, HashMap};

use crate::digest::ImageId;

/// Cuts parents that are missing, and one in each loop, so that every walk up ends.
pub(super) fn cut_parents(
    images: &mut BTreeMap<ImageId, Option<ImageId>>,
) -> Vec<(ImageId, &'static str)> {
    let mut cuts = Vec::new();
    let mut walks: HashMap<ImageId, usize> = HashMap::new();
    for (walk, start) in images.keys().enumerate() {
        let mut at = *start;
        while !walks.contains_key(&at) {
            walks.insert(at, walk);
            let Some(Some(parent)) = images.get(&at) else { break };
            if !images.contains_key(parent) {
                cuts.push((at, "the parent is missing"));
            } else if walks.get(parent) == Some(&walk) {
                cuts.push((at, "the parents form a loop"));
            }
            at = *parent;
        }
    }
    for (id, _) in &cuts {
        images.insert(*id, None);
    }
    cuts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    #[test]
    fn walks_up_the_parents_end() {
        let ids: Vec<ImageId> = (0..6_u8).map(|byte| ImageId(Digest::of(&[byte]))).collect();
        let chain = |parents: &[(usize, Option<usize>)]| -> BTreeMap<ImageId, Option<ImageId>> {
            parents.iter().map(|(id, parent)| (ids[*id], parent.map(|at| ids[at]))).collect()
        };
        for (parents, cuts) in [
            (&[(0, None), (1, Some(0)), (2, Some(1)), (3, Some(1))][..], 0),
            (&[(0, Some(0))], 1),
            (&[(0, Some(1)), (1, Some(2)), (2, Some(0)), (3, Some(0)), (4, Some(3))], 1),
            (&[(0, Some(1)), (1, Some(0)), (2, Some(3)), (3, Some(2))], 2),
            (&[(0, Some(5)), (1, Some(0))], 1),
        ] {
            let mut images = chain(parents);
            assert_eq!(cut_parents(&mut images).len(), cuts, "{parents:?}");
            assert_eq!(cut_parents(&mut images).len(), 0, "nothing is left to cut");
            for start in images.keys() {
                let walk = std::iter::successors(Some(*start), |id| images[id]);
                assert!(walk.take(10).count() < 10, "{parents:?}");
            }
        }
    }
}
