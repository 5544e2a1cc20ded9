//! All that a boot loader needs, in one directory: `terrane image`.

mod uboot;
