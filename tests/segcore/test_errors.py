"""Secrets of addresses are masked in errors; everything else in them stays as it is."""

import pickle

import pytest

from segcore.errors import DataError, StageError, masked

SECRET = "S3cretPw"


@pytest.mark.parametrize(
    "text",
    [
        "http://user:{}@127.0.0.1:9",
        "http://user:a@b/{}?x#y@host/path",
        "https://{}@github.com/org/repo",
        "https://user@example.org:{}@host/",
        "postgresql+psycopg2://user:{}%40x@host:5432/db",
        "postgresql://user:{}@/db?host=/run",
        "redis://:{}@host:6",
        "s3://KEY:abc/{}@bucket/x",
        "ftp://user:12345{}@host/inbox",
        "git+https://u:{}@host/r.git",
        'http://u:a"{}@host',
        "(see http://u:{}@host), now",
        "https://host/x?token={}&a=1",
        "https://host/x?X-Amz-Credential=a&X-Amz-Signature={}&b=2",
        "https://account.blob.core.windows.net/c?sv=1&sig={}",
        "https://host/?url=http%3A%2F%2Fu%3A{}%40host",
        "https://maps.example.org/?key={}",
        "DefaultEndpointsProtocol=https;AccountName=a;AccountKey={}+/==;EndpointSuffix=x",
        "host=h user=u password={} dbname=x",
        "Authorization: Bearer {}",
        "{{'Authorization': 'Basic {}=='}}",
        "bearer {}0123456789abcdef",
        '{{"password": "a b {}"}}',
        "aws_secret_access_key = {}",
        "secret_access_key: {}",
        "mount --secret-key {} /mnt",
        "https://hooks.slack.com/services/T0/B0/{}",
        "https://discord.com/api/webhooks/1/{}",
        "first http://a:{0}@h1, then http://b:{0}@h2",
        "http://user:{}@: is not an address",
        "//user:{}@host/share",
        "databricks://user:{0}@host: `put-secret user {0}@host-token` failed",
        "PREFECT_API_AUTH_STRING=admin:{}",
        "mssql+pyodbc:///?odbc_connect=DRIVER%3DX%3BPWD%3D{}%3B",
        "azure://c?sas={}",
        "X-Api-Key: {}",
        "Set-Cookie: session={}; path=/",
        "https://outlook.example.org/webhook/{}",
        "https://api.telegram.org/bot123456:{}/sendMessage",
        "slack://xoxb-1-{}",
        "ghp_{}",
    ],
)
def test_a_secret_is_masked_wherever_it_stands(text: str) -> None:
    hidden = masked(text.format(SECRET))
    assert SECRET not in hidden and "***" in hidden
    assert masked(hidden) == hidden


@pytest.mark.parametrize(
    "text",
    [
        "s3://bucket/x",
        "s3://bucket/2024:01/x@y",
        "http://host:5000/a@b",
        "http://host/a@b:c@d",
        "http://[::1]:5000/a@b",
        "http://127.0.0.1:5000, user@example.org",
        '{"uri":"http://host:5000","mail":"a@b"}',
        "https://host/x?a=1&code=404",
        r"C:\data\a@b:c",
        "mail me@example.org or you:me@example.org",
        "abfs://container@account.dfs.core.windows.net/x",
        "ssh://git@github.com/x",
        "git@github.com:org/x.git",
        "models:/x@champion",
        "sqlite:////home/a:b/c@d.db",
        "file:///data/x:1@2.tif",
        "the key=3 of the token, monkey=4",
        "basic authentication, bearer of news",
        "data/x: 12 tokens: ok",
        ".git/hooks/pre-commit failed",
        "run_key: 3, sort key: 4",
    ],
)
def test_harmless_text_is_not_altered(text: str) -> None:
    assert masked(text) == text


def test_errors_carry_no_secret_and_survive_pickling() -> None:
    error = StageError(f"http://u:{SECRET}@h: away", f"correct http://u:{SECRET}@h")
    assert SECRET not in str(error) + repr(error) + error.what + error.remedy
    # as from a process of a pool
    copy = pickle.loads(pickle.dumps(DataError(f"x?token={SECRET}", "r", "leak")))  # noqa: S301
    assert (copy.what, copy.remedy, copy.kind) == ("x?token=***", "r", "leak")
