//! From a stream of blocks to the entries of an archive, each with all that its headers say together.
//!
//! Where tools are known to read one archive differently (two sizes, data behind a link, PAX and GNU names that
//! disagree: CVE-2025-62518 and RUSTSEC-2026-0067 and -0068 are of this kind), the archive is refused rather than
//! read in one of the ways.

use std::io::Read;

use tar::Header;

use super::blocks::{Blocks, Next, too_much};
use super::error::{ApplyError, Problem};
use super::extension::{Extensions, agree, link_target, once, plain_size, size, unnamed, whole_seconds};
use super::header::{self, BLOCK, text};
use super::options::Limits;
use super::pax::{self, Pax, Time};
use super::sparse::{self, Segment};

/// One entry of an archive.
#[derive(Debug)]
pub(crate) struct Member {
    /// As the archive gives it.
    pub(crate) name: Vec<u8>,
    pub(crate) kind: Kind,
    /// Permission bits, with setuid, setgid and sticky.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Time,
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What an entry is.
#[derive(Debug)]
pub(crate) enum Kind {
    File(Content),
    Directory,
    Symlink(Vec<u8>),
    HardLink(Vec<u8>),
    Fifo,
    Character(u32, u32),
    Block(u32, u32),
}

/// The bytes of a file: `stored` of them follow in the archive.
#[derive(Debug)]
pub(crate) struct Content {
    pub(crate) size: u64,
    pub(crate) stored: u64,
    /// Where the stored bytes belong, if the file has holes.
    pub(crate) map: Option<Vec<Segment>>,
}

/// The entries of an uncompressed archive, one after the other.
pub(crate) struct Members<'l, R> {
    blocks: Blocks<'l, R>,
    limits: &'l Limits,
    entries: u64,
    expanded: u64,
}

impl<'l, R: Read> Members<'l, R> {
    /// With `strict_end`, an archive without its end mark counts as cut off.
    pub(crate) fn new(input: R, limits: &'l Limits, strict_end: bool) -> Self {
        Members {
            blocks: Blocks::new(input, limits, strict_end),
            limits,
            entries: 0,
            expanded: 0,
        }
    }

    /// The next entry; what was not read of the last one's data is passed over.
    pub(crate) fn next(&mut self) -> Result<Option<Member>, ApplyError> {
        let mut extensions = Extensions::default();
        loop {
            self.blocks.skip_data()?;
            let at = self.blocks.offset();
            let header = match self.blocks.next_header()? {
                Next::Header(header) => header,
                Next::End if extensions.is_empty() => return Ok(None),
                Next::End => return Err(self.blocks.truncated("the entry that the last header describes")),
            };
            if !header::checksum_fits(&header) {
                let problem = "a header's checksum is wrong";
                return Err(ApplyError::Damaged { offset: at, problem });
            }
            let name = header::name(&header);
            if !self
                .extension(&header, &mut extensions)
                .map_err(|e| e.named(&name))?
            {
                return self
                    .member(&header, extensions)
                    .map(Some)
                    .map_err(|e| e.named(&name));
            }
        }
    }

    /// Reads data of the present entry; 0 only at its end.
    pub(crate) fn read_data(&mut self, buf: &mut [u8]) -> Result<usize, ApplyError> {
        self.blocks.read_data(buf)
    }

    /// Reads what follows the end mark, which means nothing, up to the end of the input.
    pub(crate) fn finish(self) -> Result<R, ApplyError> {
        self.blocks.finish()
    }

    /// Takes in a header that only describes the next one; false if this is an entry of its own.
    fn extension(&mut self, header: &Header, to: &mut Extensions) -> Result<bool, ApplyError> {
        match header.as_old().linkflag[0] {
            b'x' => {
                let data = self.extension_data(header)?;
                once(&mut to.pax, pax::parse(&data).map_err(unnamed)?, "PAX")
            }
            b'g' => pax::check_global(&self.extension_data(header)?).map_err(unnamed),
            b'L' => {
                let name = text(&self.extension_data(header)?).to_vec();
                once(&mut to.long_name, name, "GNU long name")
            }
            b'K' => {
                let link = text(&self.extension_data(header)?).to_vec();
                once(&mut to.long_link, link, "GNU long link")
            }
            // A label of the archive itself.
            b'V' => Ok(()),
            _ => return Ok(false),
        }?;
        Ok(true)
    }

    fn extension_data(&mut self, header: &Header) -> Result<Vec<u8>, ApplyError> {
        let size = plain_size(header).map_err(unnamed)?;
        let limit = self.limits.max_header;
        let length = usize::try_from(size).ok().filter(|n| *n <= limit);
        let length = length.ok_or_else(|| {
            unnamed(Problem::TooLong {
                what: "extension header",
                limit,
            })
        })?;
        self.blocks.expect_data(size).map_err(unnamed)?;
        let mut data = vec![0; length];
        let mut filled = 0;
        while filled < length {
            filled += self.blocks.read_data(&mut data[filled..])?;
        }
        Ok(data)
    }

    fn member(&mut self, header: &Header, extensions: Extensions) -> Result<Member, ApplyError> {
        self.count_entry()?;
        let pax = extensions.pax.unwrap_or_default();
        let gnu_name = pax.sparse.as_ref().and_then(|s| s.name.clone());
        let named = gnu_name.or(agree("name", extensions.long_name, pax.path.clone()).map_err(unnamed)?);
        let name = named.unwrap_or_else(|| header::name(header));
        let made = self.finish_member(header, pax, extensions.long_link, &name);
        made.map_err(|e| e.named(&name))
    }

    fn finish_member(
        &mut self,
        header: &Header,
        mut pax: Pax,
        long_link: Option<Vec<u8>>,
        name: &[u8],
    ) -> Result<Member, ApplyError> {
        let old = header.as_old();
        let field = |f: &[u8], what| header::number(f).ok_or_else(|| unnamed(Problem::NotANumber(what)));
        let mode = (field(&old.mode, "mode")? & 0o7777) as u32;
        let id = |what, f: &[u8], over: Option<i128>| {
            let value = over.map_or_else(|| field(f, what), Ok)?;
            header::id(what, value).map_err(unnamed)
        };
        let (uid, gid) = (id("uid", &old.uid, pax.uid)?, id("gid", &old.gid, pax.gid)?);
        let mtime = match pax.mtime {
            Some(time) => time,
            None => whole_seconds(field(&old.mtime, "time")?),
        };
        let xattrs = std::mem::take(&mut pax.xattrs);
        let kind = self.kind(header, pax, long_link, name)?;
        Ok(Member {
            name: name.to_vec(),
            kind,
            mode,
            uid,
            gid,
            mtime,
            xattrs,
        })
    }

    fn kind(
        &mut self,
        header: &Header,
        pax: Pax,
        long_link: Option<Vec<u8>>,
        name: &[u8],
    ) -> Result<Kind, ApplyError> {
        let size = size(header, &pax).map_err(unnamed)?;
        let flag = header.as_old().linkflag[0];
        let no_data = |kind: &'static str| match size {
            0 => Ok(()),
            _ => Err(unnamed(Problem::DataOnNonFile { kind, size })),
        };
        let link = || link_target(header, long_link, pax.link.clone());
        let slash = name.ends_with(b"/");
        match flag {
            0 if slash => no_data("directory").map(|()| Kind::Directory),
            b'0' | b'7' if slash => Err(unnamed(Problem::FileWithSlash)),
            0 | b'0' | b'7' | b'S' => self.file(header, pax, size).map(Kind::File),
            b'1' => no_data("hard link").and_then(|()| Ok(Kind::HardLink(link()?))),
            b'2' => no_data("symbolic link").and_then(|()| Ok(Kind::Symlink(link()?))),
            b'5' => no_data("directory").map(|()| Kind::Directory),
            b'6' => no_data("FIFO").map(|()| Kind::Fifo),
            b'3' | b'4' => {
                no_data("device")?;
                let (major, minor) = header::device(header).map_err(unnamed)?;
                Ok(if flag == b'3' {
                    Kind::Character(major, minor)
                } else {
                    Kind::Block(major, minor)
                })
            }
            _ => Err(unnamed(Problem::UnknownType(flag))),
        }
    }

    fn file(&mut self, header: &Header, pax: Pax, stored: u64) -> Result<Content, ApplyError> {
        let content = match (header.as_old().linkflag[0], pax.sparse) {
            (b'S', None) => self.old_sparse(header, stored)?,
            (b'S', Some(_)) => return Err(unnamed(Problem::BadSparse("two kinds of map"))),
            (_, Some(s)) => self.pax_sparse(s, stored)?,
            (_, None) => {
                self.blocks.expect_data(stored).map_err(unnamed)?;
                Content {
                    size: stored,
                    stored,
                    map: None,
                }
            }
        };
        self.expanded = self.expanded.saturating_add(content.size);
        match self.expanded > self.limits.max_expanded {
            true => Err(too_much("bytes when uncompressed", self.limits.max_expanded)),
            false => Ok(content),
        }
    }

    fn old_sparse(&mut self, header: &Header, stored: u64) -> Result<Content, ApplyError> {
        let gnu = header
            .as_gnu()
            .ok_or_else(|| unnamed(Problem::BadSparse("not a GNU header")))?;
        let size = header::number(&gnu.realsize).and_then(|n| u64::try_from(n).ok());
        let size = size.ok_or_else(|| unnamed(Problem::NotANumber("size")))?;
        let mut map = Vec::new();
        // 386: where the GNU header's four pairs lie.
        let bytes = header.as_bytes();
        let mut more = sparse::take_old(&bytes[386..482], bytes[482], &mut map).map_err(unnamed)?;
        while more {
            let mut block = [0; BLOCK];
            if self.blocks.read_block(&mut block)? < BLOCK {
                return Err(self.blocks.truncated("the rest of a sparse map"));
            }
            more = sparse::take_old(&block[..504], block[504], &mut map).map_err(unnamed)?;
        }
        sparse::check(&map, size, stored).map_err(unnamed)?;
        self.blocks.expect_data(stored).map_err(unnamed)?;
        Ok(Content {
            size,
            stored,
            map: Some(map),
        })
    }

    fn pax_sparse(&mut self, sparse: pax::PaxSparse, stored: u64) -> Result<Content, ApplyError> {
        let size = sparse
            .real_size
            .ok_or_else(|| unnamed(Problem::BadSparse("no real size")))?;
        self.blocks.expect_data(stored).map_err(unnamed)?;
        let (map, in_map) = match sparse.major {
            0 => (sparse.map, 0),
            1 => self.sparse_lines()?,
            _ => return Err(unnamed(Problem::BadSparse("its version is not known"))),
        };
        let stored = stored
            .checked_sub(in_map)
            .ok_or_else(|| unnamed(Problem::BadSparse("no data")))?;
        sparse::check(&map, size, stored).map_err(unnamed)?;
        Ok(Content {
            size,
            stored,
            map: Some(map),
        })
    }

    /// Returns the map and its length in bytes.
    fn sparse_lines(&mut self) -> Result<(Vec<Segment>, u64), ApplyError> {
        let (map, blocks) = sparse::read_lines(|| {
            let mut block = [0; BLOCK];
            let mut filled = 0;
            while filled < BLOCK {
                match self.blocks.read_data(&mut block[filled..])? {
                    0 => return Err(Unnamed(unnamed(Problem::BadSparse("the map is not complete")))),
                    n => filled += n,
                }
            }
            Ok(block)
        })
        .map_err(|Unnamed(e)| e)?;
        Ok((map, blocks * BLOCK as u64))
    }

    fn count_entry(&mut self) -> Result<(), ApplyError> {
        self.entries += 1;
        match self.entries > self.limits.max_entries {
            true => Err(too_much("entries", self.limits.max_entries)),
            false => Ok(()),
        }
    }
}

/// Lets the sparse map's reader fail in both ways.
struct Unnamed(ApplyError);

impl From<Problem> for Unnamed {
    fn from(problem: Problem) -> Unnamed {
        Unnamed(unnamed(problem))
    }
}

impl From<ApplyError> for Unnamed {
    fn from(error: ApplyError) -> Unnamed {
        Unnamed(error)
    }
}
