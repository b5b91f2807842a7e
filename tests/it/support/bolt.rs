//! Writes bbolt files as bbolt lays them out, from the description of the format alone.

use std::collections::BTreeMap;

/// What a key of a bucket stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Item {
    Value(Vec<u8>),
    Bucket(Tree),
}

/// The contents of a bucket.
pub(crate) type Tree = BTreeMap<Vec<u8>, Item>;

/// The bucket of this path, made where it is missing.
pub(crate) fn bucket<'a>(tree: &'a mut Tree, path: &[&str]) -> &'a mut Tree {
    let Some((name, rest)) = path.split_first() else { return tree };
    let item = tree.entry(name.as_bytes().to_vec()).or_insert(Item::Bucket(Tree::new()));
    let Item::Bucket(inner) = item else { panic!("{name} is a value") };
    bucket(inner, rest)
}

/// Puts a value into the bucket of this path.
pub(crate) fn put(tree: &mut Tree, path: &[&str], key: &str, value: impl AsRef<[u8]>) {
    bucket(tree, path).insert(key.into(), Item::Value(value.as_ref().to_vec()));
}

/// A whole file with one state, that of transaction 6.
pub(crate) fn file(tree: &Tree, page_size: usize) -> Vec<u8> {
    // Pages 2 and 3 are nobody's: the free list, which no reader needs.
    let mut pages = Pages::new(page_size, 4);
    let root = pages.bucket(tree);
    let high_water = 4 + pages.bytes.len() / page_size;
    let older = meta_page(page_size, 3, 4, 5);
    let newer = meta_page(page_size, root, high_water as u64, 6);
    [newer, older, vec![0xa5; 2 * page_size], pages.bytes].concat()
}

/// A meta page; transaction n belongs on page n mod 2.
pub(crate) fn meta_page(page_size: usize, root: u64, high_water: u64, transaction: u64) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(0xED0C_DAED_u32.to_le_bytes());
    body.extend(2u32.to_le_bytes());
    body.extend((page_size as u32).to_le_bytes());
    body.extend(0u32.to_le_bytes());
    for number in [root, 0, u64::MAX, high_water, transaction] {
        body.extend(number.to_le_bytes());
    }
    let sum = body.iter().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    });
    body.extend(sum.to_le_bytes());
    let mut page = header(transaction % 2, 4, 0, 0);
    page.extend(body);
    page.resize(page_size, 0);
    page
}

/// Pages one after another, from some page of a file on.
#[derive(Debug)]
pub(crate) struct Pages {
    page_size: usize,
    first: u64,
    pub(crate) bytes: Vec<u8>,
}

/// A run of elements that make a page: key, and value or child.
type Run<'a, T> = &'a [(Vec<u8>, T)];

/// What stands behind a key of a leaf page: flags, and a value.
type Stored = (u32, Vec<u8>);

impl Pages {
    pub(crate) fn new(page_size: usize, first: u64) -> Pages {
        Pages { page_size, first, bytes: Vec::new() }
    }

    /// Writes the tree of a bucket and answers with its root.
    pub(crate) fn bucket(&mut self, tree: &Tree) -> u64 {
        let leaves = self.leaves(tree);
        let mut level = Vec::new();
        for run in runs(&leaves, self.page_size, |(_, value): &Stored| value.len()) {
            level.push((run.first().map_or(Vec::new(), |leaf| leaf.0.clone()), self.leaf(run)));
        }
        while level.len() > 1 {
            let mut above = Vec::new();
            for run in runs(&level, self.page_size, |_| 0) {
                above.push((run[0].0.clone(), self.branch(run)));
            }
            level = above;
        }
        level[0].1
    }

    /// Keys with flags and values: a bucket is its header, or its page with it where it is small.
    fn leaves(&mut self, tree: &Tree) -> Vec<(Vec<u8>, Stored)> {
        let mut leaves = Vec::new();
        for (key, item) in tree {
            let leaf = match item {
                Item::Value(value) => (0, value.clone()),
                Item::Bucket(inner) => (1, self.bucket_value(inner)),
            };
            leaves.push((key.clone(), leaf));
        }
        leaves
    }

    fn bucket_value(&mut self, tree: &Tree) -> Vec<u8> {
        let values: Option<Vec<_>> = tree
            .iter()
            .map(|(key, item)| match item {
                Item::Value(value) => Some((key.clone(), (0, value.clone()))),
                Item::Bucket(_) => None,
            })
            .collect();
        let inline = values.map(|values| page(0, 2, &leaf_elements(&values), 0));
        let inline = inline.filter(|page| page.len() <= self.page_size / 4);
        let root = if inline.is_some() { 0 } else { self.bucket(tree) };
        [&root.to_le_bytes()[..], &7u64.to_le_bytes(), &inline.unwrap_or_default()].concat()
    }

    fn leaf(&mut self, run: Run<'_, Stored>) -> u64 {
        self.push(2, &leaf_elements(run))
    }

    fn branch(&mut self, run: Run<'_, u64>) -> u64 {
        let element = |(key, child): &(Vec<u8>, u64)| Element {
            head: |at, key, _, child| [&at.to_le_bytes()[..], &key.to_le_bytes(), child].concat(),
            extra: child.to_le_bytes().to_vec(),
            key: key.clone(),
            value: Vec::new(),
        };
        self.push(1, &run.iter().map(element).collect::<Vec<_>>())
    }

    fn push(&mut self, flags: u16, elements: &[Element]) -> u64 {
        let id = self.first + (self.bytes.len() / self.page_size) as u64;
        let page = page(id, flags, elements, self.page_size);
        self.bytes.extend(page);
        id
    }
}

struct Element {
    /// Makes the 16 bytes from the data's offset, the sizes of key and value, and what follows.
    head: fn(u32, u32, u32, &[u8]) -> Vec<u8>,
    extra: Vec<u8>,
    key: Vec<u8>,
    value: Vec<u8>,
}

fn leaf_elements(run: Run<'_, Stored>) -> Vec<Element> {
    let element = |(key, (flags, value)): &(Vec<u8>, Stored)| Element {
        head: |at, key, value, flags| {
            [flags, &at.to_le_bytes()[..], &key.to_le_bytes(), &value.to_le_bytes()].concat()
        },
        extra: flags.to_le_bytes().to_vec(),
        key: key.clone(),
        value: value.clone(),
    };
    run.iter().map(element).collect()
}

/// Splits elements into runs that fill a page each, at least one element long. No elements are one
/// empty run.
fn runs<T>(
    elements: &[(Vec<u8>, T)],
    page_size: usize,
    value_len: impl Fn(&T) -> usize,
) -> Vec<Run<'_, T>> {
    let (mut runs, mut from, mut size) = (Vec::new(), 0, 16);
    for (at, (key, value)) in elements.iter().enumerate() {
        let more = 16 + key.len() + value_len(value);
        // At least two children, so that a tree of long keys ends somewhere.
        if at > from + 1 && size + more > page_size {
            runs.push(&elements[from..at]);
            (from, size) = (at, 16);
        }
        size += more;
    }
    runs.push(&elements[from..]);
    runs
}

/// A page with `elements`, as long as it needs, or in whole pages where `page_size` is not 0.
fn page(id: u64, flags: u16, elements: &[Element], page_size: usize) -> Vec<u8> {
    let (mut heads, mut data) = (Vec::new(), Vec::new());
    for (index, element) in elements.iter().enumerate() {
        let at = (elements.len() - index) * 16 + data.len();
        let [key, value] = [&element.key, &element.value].map(|part| part.len() as u32);
        heads.extend((element.head)(at as u32, key, value, &element.extra));
        data.extend([&element.key[..], &element.value].concat());
    }
    let size = 16 + heads.len() + data.len();
    let overflow = (size - 1).checked_div(page_size).unwrap_or(0);
    let mut page = header(id, flags, elements.len() as u16, overflow as u32);
    page.extend(heads);
    page.extend(data);
    page.resize(size.max((overflow + 1) * page_size), 0);
    page
}

fn header(id: u64, flags: u16, count: u16, overflow: u32) -> Vec<u8> {
    [&id.to_le_bytes()[..], &flags.to_le_bytes(), &count.to_le_bytes(), &overflow.to_le_bytes()]
        .concat()
}
