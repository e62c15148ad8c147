"""What a server is told: file, environment, options; each slip at its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from forge.model.errors import InvalidConfiguration, UsageError
from forge.server.settings import in_schema, read_settings


def make_project(folder: Path) -> Path:
    (folder / "forge").mkdir(parents=True)
    (folder / "forge/pipeline.yaml").write_text("name: shop\njobs: {build: {steps: [{run: 'true'}]}}\n")
    return folder


def write(folder: Path, text: str) -> Path:
    file = folder / "forge-server.yaml"
    file.write_text(text)
    return file


def read(folder: Path, environ: dict[str, str] | None = None, **given):
    return read_settings(None, folder, environ=environ or {}, **given)


def problems(folder: Path, text: str, environ: dict[str, str] | None = None) -> list[tuple[int, int, str, str]]:
    write(folder, text)
    with pytest.raises(InvalidConfiguration) as caught:
        read(folder, environ)
    return [(one.line, one.column, one.message, one.hint) for one in caught.value.diagnostics]


class TestDefaults:
    def test_in_a_project_it_serves_that_project_from_its_own_state_folder(self, tmp_path):
        project = make_project(tmp_path / "My Shop")
        settings = read(project)
        assert list(settings.projects) == ["My-Shop"]
        assert settings.projects["My-Shop"].path == str(project)
        assert settings.state == project / ".forge/server"
        assert settings.site_database == f"sqlite:///{project}/.forge/server/server.db"
        assert (settings.host, settings.port, settings.loopback, settings.work) == ("127.0.0.1", 8700, True, True)

    def test_it_finds_the_project_from_a_folder_inside_it(self, tmp_path):
        project = make_project(tmp_path / "shop")
        (project / "src/deep").mkdir(parents=True)
        assert read(project / "src/deep").projects["shop"].path == str(project)

    def test_without_any_project_there_is_none(self, tmp_path):
        settings = read(tmp_path)
        assert settings.projects == {}
        assert settings.state == tmp_path / ".forge-server"


class TestFile:
    def test_paths_are_relative_to_the_file(self, tmp_path):
        make_project(tmp_path / "shop")
        make_project(tmp_path / "till")
        (tmp_path / "site").mkdir()
        write(
            tmp_path / "site", "state: kept\nprojects:\n  shop: ../shop\n  till: {path: ../till, artifacts: s3://b/p}\n"
        )
        settings = read(tmp_path / "site")
        assert settings.projects["shop"].path == str(tmp_path / "shop")
        assert settings.projects["till"].artifacts == "s3://b/p"
        assert settings.state == tmp_path / "site/kept"
        assert settings.project("till").artifacts_url == "s3://b/p"

    def test_environment_goes_above_the_file_and_options_above_both(self, tmp_path):
        write(tmp_path, "port: 1000\nhost: 10.0.0.1\nlease_seconds: 20\n")
        settings = read(tmp_path, {"FORGE_SERVER_PORT": "2000", "FORGE_SERVER_HOST": "10.0.0.2"}, host="::1", port=None)
        assert (settings.port, settings.host, settings.lease_seconds) == (2000, "::1", 20)
        assert settings.loopback

    def test_an_unknown_setting_is_shown_where_it_stands(self, tmp_path):
        ((line, column, message, hint),) = problems(tmp_path, "host: 127.0.0.1\nprot: 8700\n")
        assert (line, column) == (2, 1)
        assert "prot" in message
        assert "port" in hint

    def test_every_slip_is_told_at_once(self, tmp_path):
        found = problems(tmp_path, "port: 70000\ndatabase: mysql://x/y\npublic_url: example.com\n")
        assert [line for line, *_ in found] == [1, 2, 3]

    def test_a_bad_value_in_the_environment_is_told_by_the_name_of_the_variable(self, tmp_path):
        ((line, _, message, _),) = problems(tmp_path, "host: 127.0.0.1\n", {"FORGE_SERVER_PORT": "many"})
        assert line == 0
        assert message.startswith("FORGE_SERVER_PORT")

    def test_a_bad_name_of_a_project_is_refused(self, tmp_path):
        ((line, _, message, _),) = problems(tmp_path, "projects:\n  'a/b': .\n")
        assert line >= 1
        assert "a/b" in message

    def test_a_list_is_no_mapping_of_settings(self, tmp_path):
        ((line, _, message, _),) = problems(tmp_path, "- port\n")
        assert line == 1
        assert "mapping" in message

    def test_broken_yaml_is_told_with_its_place(self, tmp_path):
        found = problems(tmp_path, "port: [1\n")
        assert found[0][0] >= 1

    def test_a_project_without_a_pipeline_is_told(self, tmp_path):
        write(tmp_path, "projects: {shop: ./nowhere}\n")
        with pytest.raises(UsageError, match=r"shop has no forge/pipeline\.yaml"):
            read(tmp_path)

    def test_a_named_file_must_be_there(self, tmp_path):
        with pytest.raises(UsageError, match="there is no file"):
            read_settings(tmp_path / "other.yaml", tmp_path, environ={})


class TestDatabases:
    def test_with_postgresql_each_project_has_a_schema_of_its_own(self, tmp_path):
        make_project(tmp_path / "shop")
        make_project(tmp_path / "till")
        write(tmp_path, "projects:\n  shop: shop\n  till: {path: till, database: 'sqlite:////x/till.db'}\n")
        settings = read(tmp_path, {"FORGE_SERVER_DATABASE": "postgresql://f@h/forge"})
        assert settings.shared
        shop = settings.project("shop").database_url
        assert shop == "postgresql://f@h/forge?options=-csearch_path%3D%22forge_shop%22"
        assert settings.project("till").database_url == "sqlite:////x/till.db"

    def test_a_schema_joins_what_the_url_says_already(self):
        assert (
            in_schema("postgresql:///f?host=/run", "a") == "postgresql:///f?host=/run&options=-csearch_path%3D%22a%22"
        )

    def test_without_it_a_project_is_where_the_command_line_has_it(self, tmp_path, monkeypatch):
        monkeypatch.delenv("FORGE_DATABASE", raising=False)
        project = make_project(tmp_path / "shop")
        assert read(project).project("shop").database_url == f"sqlite:///{project}/.forge/forge.db"

    def test_an_unknown_project_is_told_with_the_nearest_name(self, tmp_path):
        settings = read(make_project(tmp_path / "shop"))
        with pytest.raises(UsageError) as caught:
            settings.project("shpo")
        assert "shop" in caught.value.hint
