"""Names of photos in folders, archives and sample tables: made safe, compared, hashed."""
import hashlib
import posixpath


def clean_name(name: str) -> str | None:
    """The relative path that a name means, without "." and "//"; None if it is absolute, climbs with ".." or has a NUL.

    Links are not looked at: a link inside a user's folder is the user's wish, and links in archives are never followed.
    """
    if name.startswith("/") or "\0" in name or ".." in name.split("/"):
        return None
    return posixpath.normpath(name)


def base_name(key: str) -> str:
    """The file name of the photo with that id."""
    return f"{key}.jpg"


def name_hash(name: str) -> int:
    """64 bits that stand for a name in an index: blake2b, so that no library version changes them."""
    digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")
