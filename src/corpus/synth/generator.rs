//! The generated world as a function: (split, index) → document. It has no state, so that documents
//! can be made in any order and in parallel.

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{
    atlas::Atlas, community::Community, options::WorldOptions, outline::Outline, script, story,
    story::Told,
};

/// Average number of documents about a community of the distant corpus.
const DOCUMENTS_PER_COMMUNITY: usize = 12;
/// The same for communities that occur in one of the annotated splits only.
const DOCUMENTS_PER_FRESH_COMMUNITY: usize = 4;
const MIN_COMMUNITIES: usize = 8;

/// The parts of the corpus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Split {
    Distant,
    Human,
    Dev,
    Test,
}

impl Split {
    fn name(self) -> &'static str {
        match self {
            Self::Distant => "distant",
            Self::Human => "human",
            Self::Dev => "dev",
            Self::Test => "test",
        }
    }

    /// Share of documents about communities that no other split has.
    fn fresh_share(self) -> f64 {
        match self {
            Self::Distant => 0.0,
            Self::Human => 0.5,
            Self::Dev | Self::Test => 0.7,
        }
    }
}

/// Makes documents.
pub(super) struct WorldGenerator {
    options: WorldOptions,
    atlas: Atlas,
    communities: usize,
}

impl WorldGenerator {
    pub(super) fn new(options: &WorldOptions) -> Self {
        let communities = (options.distant / DOCUMENTS_PER_COMMUNITY).max(MIN_COMMUNITIES);
        let atlas = Atlas::new(communities, &mut keyed(options.seed, "atlas", 0));
        Self { options: options.clone(), atlas, communities }
    }

    /// Number of documents of a split.
    pub(super) fn size(&self, split: Split) -> usize {
        match split {
            Split::Distant => self.options.distant,
            Split::Human => self.options.human,
            Split::Dev => self.options.dev,
            Split::Test => self.options.test,
        }
    }

    /// One document.
    pub(super) fn tell(&self, split: Split, index: usize) -> Told {
        let mut rng = keyed(self.options.seed, split.name(), index);
        let community = self.community(split, &mut rng);
        let outline = Outline::new(&community, self.options.noise, &mut rng);
        let script = script::write(&community, &outline, &mut rng);
        let subject = outline
            .said
            .first()
            .map_or_else(String::new, |fact| community.things[fact.head].names[0].clone());
        story::tell(
            &community,
            &outline,
            &script,
            format!("{subject} ({} {index})", split.name()),
            &mut rng,
        )
    }

    fn community<R: Rng>(&self, split: Split, rng: &mut R) -> Community {
        let (pool, size) = if rng.random_bool(split.fresh_share()) {
            (split, self.size(split).div_ceil(DOCUMENTS_PER_FRESH_COMMUNITY))
        } else {
            (Split::Distant, self.communities)
        };
        let number = rng.random_range(0..size.max(1));
        Community::new(
            &self.atlas,
            &mut keyed(self.options.seed, &format!("community of {}", pool.name()), number),
        )
    }
}

/// A random generator for one purpose, independent of all others.
fn keyed(seed: u64, purpose: &str, index: usize) -> ChaCha8Rng {
    let mut hasher = blake3::Hasher::new();
    hasher
        .update(&seed.to_le_bytes())
        .update(&(index as u64).to_le_bytes())
        .update(purpose.as_bytes());
    ChaCha8Rng::from_seed(*hasher.finalize().as_bytes())
}
