"""`python metabase/provision.py plan|apply|check`, the same as `pulsewatch metabase ...`.

The program is the package pulsewatch.metabase, which the wheel carries with the specs beside this file.
"""

from pulsewatch.cli_metabase import metabase

if __name__ == "__main__":
    metabase(prog_name="provision.py")
