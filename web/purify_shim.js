// Debian 12's DOMPurify (2.4.1+dfsg+~2.4.0-2+deb12u1) reads, in sanitize(), a variable that its backport of
// CVE-2024-45801 does not declare, and fails for every text with a tag. The check stands where upstream asks for
// FORCE_BODY, which is off here; a node of depth 0 gives the same. Other versions do not look at it.
const shadowNode = Object.freeze({__depth: 0});
