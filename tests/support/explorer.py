"""What Windows does over SMB and smbclient(1) cannot: dates and permissions, set on an open handle."""

from __future__ import annotations

from smbclient._io import SMBFileIO, SMBFileTransaction, set_info
from smbprotocol.file_info import FileBasicInformation, InfoType
from smbprotocol.open import SMB2SetInfoRequest
from smbprotocol.security_descriptor import AccessAllowedAce, AccessMask, AclPacket, SIDPacket, SMB2CreateSDBuffer
from smbprotocol.structure import DateTimeField

DACL_SECURITY_INFORMATION = 0x4


def set_date(file, timestamp: int) -> None:
    """Date a file through the handle that wrote it: after any other one, the close puts the present time back."""
    information = FileBasicInformation()
    information["last_write_time"] = DateTimeField.EPOCH_FILETIME + timestamp * 10_000_000
    with SMBFileTransaction(file.raw) as transaction:
        set_info(transaction, information)


def keep_for_oneself(path: str, uid: int, **login) -> None:
    """Replace the permissions of a file: all for one user, nothing for anybody else."""
    everything = AccessAllowedAce()
    everything["mask"] = AccessMask.GENERIC_ALL
    everything["sid"] = SIDPacket()
    everything["sid"].get_value().from_string(f"S-1-22-1-{uid}")  # Samba's "Unix User"
    acl = AclPacket()
    acl["aces"] = [everything]
    descriptor = SMB2CreateSDBuffer()
    descriptor.set_dacl(acl)
    request = SMB2SetInfoRequest()
    request["info_type"] = InfoType.SMB2_0_INFO_SECURITY
    request["additional_information"] = DACL_SECURITY_INFORMATION
    request["buffer"] = descriptor
    with SMBFileIO(path, share_access="rwd", desired_access=AccessMask.WRITE_DACL, **login) as file:
        request["file_id"] = file.fd.file_id
        with SMBFileTransaction(file) as transaction:
            transaction._actions.append((request, file.fd.connection.receive))
