"""What people may do: permissions, roles that are sets of them, and grants of roles on projects and environments."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

import msgspec


class Permission(StrEnum):
    """Something that one may do."""

    READ = "read"
    RUN = "run"
    """Start, cancel and retry runs; steer releases."""
    APPROVE = "approve"
    """Say yes and no at gates."""
    ADMIN = "admin"
    """Users, tokens of others, grants, the trail of acts."""


class Role(StrEnum):
    """A set of permissions with a name."""

    VIEWER = "viewer"
    RUNNER = "runner"
    APPROVER = "approver"
    ADMIN = "admin"

    @property
    def permissions(self) -> frozenset[Permission]:
        """What the role may do."""
        return _PERMISSIONS[self]


_PERMISSIONS = {
    Role.VIEWER: frozenset({Permission.READ}),
    Role.RUNNER: frozenset({Permission.READ, Permission.RUN}),
    Role.APPROVER: frozenset({Permission.READ, Permission.APPROVE}),
    Role.ADMIN: frozenset(Permission),
}


class Grant(msgspec.Struct, frozen=True):
    """A role on a project and an environment; `*` is all of them."""

    role: Role
    project: str = "*"
    environment: str = "*"

    def gives(self, permission: Permission, project: str, environment: str) -> bool:
        """Whether the grant gives a permission there. What is asked for all (`*`) is given by a grant on all only,
        but whoever may do anything in a project may look at the whole of it."""
        if permission not in self.role.permissions:
            return False
        if self.project not in {"*", project}:
            return False
        return self.environment in {"*", environment} or (permission is Permission.READ and environment == "*")


class Principal(msgspec.Struct, frozen=True):
    """Who acts. `name` is what goes on record."""

    name: str
    kind: Literal["user", "token", "link", "hook"]
    display: str = ""
    grants: tuple[Grant, ...] = ()
    session: str = ""
    """What the writes of this browser have to carry; empty for programs."""
    groups: tuple[str, ...] = ()

    def may(self, permission: Permission, project: str = "*", environment: str = "*") -> bool:
        """Whether some grant gives the permission there."""
        return any(grant.gives(permission, project, environment) for grant in self.grants)
